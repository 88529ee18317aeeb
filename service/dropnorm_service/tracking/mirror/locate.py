"""Finding a job's run again, or making it. Runs are named by explicit ids, found by their tags."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum, auto
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version

from mlflow import MlflowClient
from mlflow.entities import Experiment, LifecycleStage, Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.utils.mlflow_tags import MLFLOW_SOURCE_NAME, MLFLOW_SOURCE_TYPE, MLFLOW_USER

from dropnorm.results import TrainingJob
from dropnorm_service.tracking.messages import Rewriting
from dropnorm_service.tracking.mirror.metrics import milliseconds

JOB_TAG = "dropnorm.job"
CREATED_TAG = "dropnorm.created"
INCOMPLETE_TAG = "dropnorm.incomplete"
"""On a run that was made anew, until it has all of its job's journal."""

# MLflow's page shows an experiment of this kind as runs with charts, and does not ask what it is.
_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunRef:
    """A job's run."""

    run_id: str
    experiment_id: str
    new: bool = False
    """This process has made it, and so knows all that it holds."""
    incomplete: bool = False
    """It was made anew and has only the beginning of its job's journal."""


class Lack(Enum):
    """Why nothing can be written to a job's run."""

    DELETED = auto()
    """Somebody deleted it, who will not want it back."""
    GONE = auto()
    """MLflow was set back and lacks it, or what was made anew is not whole yet: all of the job is to be written."""


class RunLocator:
    """Knows each job's run: from memory, from the job, by its tags, or by making it."""

    def __init__(self, client: MlflowClient, artifact_root: Path | None) -> None:
        """A locator.

        Args:
            client: the store.
            artifact_root: where new experiments keep their files; None: where the tracking server says.
        """
        self._client = client
        self._artifact_root = artifact_root
        self._since = datetime.now(UTC)
        self._runs: dict[str, RunRef] = {}
        self._deleted: set[str] = set()

    def forget(self, job: TrainingJob) -> None:
        """Nothing more is expected of the job."""
        self._runs.pop(job.name, None)
        self._deleted.discard(job.name)

    def find(self, job: TrainingJob) -> RunRef | None:
        """The job's run; None when there is none, or when somebody deleted it."""
        return self._unless_deleted(job, self._find(job))

    def find_or_make(self, job: TrainingJob, rewriting: Rewriting | None = None) -> RunRef | Lack:
        """The job's run, made when there is none.

        Args:
            job: whose.
            rewriting: the part of its whole journal that is to be written; without one, a run is not made again.
        """
        if job.name not in self._runs:
            run = self.find(job)
            if run is not None and run.incomplete and rewriting is None:
                return Lack.GONE
            if run is None:
                if job.name in self._deleted:
                    return Lack.DELETED
                again = job.mlflow_run_id is not None
                if again and not (rewriting and rewriting.first):
                    return Lack.GONE
                run = self._make(job, self._experiment(job.experiment), again=again)
            self._runs[job.name] = run
        return self._runs[job.name]

    def look_again(self, job: TrainingJob, run: RunRef) -> RunRef | Lack:
        """A run that was there, if it still is; when it is not, it is looked for anew the next time."""
        self._runs.pop(job.name, None)
        found = self._get(run.run_id)
        if found is None:
            return Lack.GONE
        return self._unless_deleted(job, found) or Lack.DELETED

    def complete(self, job: TrainingJob, run: RunRef) -> None:
        """Note that a run which was made anew has all of its job's journal."""
        self._client.delete_tag(run.run_id, INCOMPLETE_TAG)
        self._runs[job.name] = replace(run, incomplete=False)

    def remove_others(self, job: TrainingJob, run: RunRef) -> None:
        """Delete further runs of the job: made by requests that came through after they had been given up for lost."""
        for other in self._all(job, run.experiment_id):
            if (
                other.info.run_id != run.run_id
                and other.info.lifecycle_stage == LifecycleStage.ACTIVE
            ):
                log.warning("a second run of %s, %s, is deleted", job.name, other.info.run_id)
                self._client.delete_run(other.info.run_id)

    def _find(self, job: TrainingJob) -> Run | None:
        # By its id first: its experiment may have got another name.
        if job.mlflow_run_id is not None and (run := self._get(job.mlflow_run_id)):
            return run
        experiment = self._client.get_experiment_by_name(job.experiment)
        found = self._search(job, [experiment]) if experiment is not None else None
        if found is None and job.create_time < self._since:
            # A process before this one may have made it, and somebody renamed the experiment before its id was known.
            found = self._search(job, self._all_experiments())
        return found

    def _all_experiments(self) -> Sequence[Experiment]:
        found: list[Experiment] = []
        token: str | None = None
        while token != "":
            page = self._client.search_experiments(ViewType.ALL, page_token=token)
            found += page
            token = page.token or ""
        return found

    def _get(self, run_id: str) -> Run | None:
        try:
            return self._client.get_run(run_id)
        except MlflowException as error:
            # Removed for good, or from another store, which the service had before.
            if error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                return None
            raise

    def _unless_deleted(self, job: TrainingJob, run: Run | None) -> RunRef | None:
        if run is None:
            return None
        if run.info.lifecycle_stage == LifecycleStage.DELETED:
            self._note_deletion(job)
            return None
        self._deleted.discard(job.name)
        incomplete = INCOMPLETE_TAG in run.data.tags
        return RunRef(run.info.run_id, run.info.experiment_id, incomplete=incomplete)

    def _note_deletion(self, job: TrainingJob) -> None:
        if job.name not in self._deleted:
            log.warning(
                "the run of %s was deleted in MLflow; unless it is restored there, nothing more is written to it",
                job.name,
            )
        self._deleted.add(job.name)

    def _search(self, job: TrainingJob, experiments: Sequence[Experiment]) -> Run | None:
        runs = self._all(job, *(experiment.experiment_id for experiment in experiments))
        return runs[0] if runs else None

    def _all(self, job: TrainingJob, *experiment_ids: str) -> Sequence[Run]:
        # The time tells a job from an earlier one of the same id, and from that of another service.
        return self._client.search_runs(
            list(experiment_ids),
            f"tags.`{JOB_TAG}` = '{job.id}' AND tags.`{CREATED_TAG}` = '{job.create_time.isoformat()}'",
            run_view_type=ViewType.ALL,
            order_by=["attributes.start_time ASC", "attributes.run_id ASC"],
        )

    def _make(self, job: TrainingJob, experiment: Experiment, *, again: bool) -> RunRef:
        if again:
            log.warning("the run of %s is gone from MLflow and is made anew", job.name)
        run = self._client.create_run(
            experiment.experiment_id,
            start_time=milliseconds(job.start_time or job.create_time),
            run_name=job.display_name,
            tags={
                JOB_TAG: job.id,
                CREATED_TAG: job.create_time.isoformat(),
                "dropnorm.spec_digest": job.spec_digest,
                "dropnorm.version": _version("dropnorm"),
                "dropnorm.torch_version": _version("torch"),
                "dropnorm.python_version": python_version(),
                MLFLOW_SOURCE_NAME: "dropnorm",
                MLFLOW_SOURCE_TYPE: "JOB",
                MLFLOW_USER: job.owner,
                **job.labels,
                **({INCOMPLETE_TAG: "true"} if again else {}),
            },
        )
        return RunRef(run.info.run_id, run.info.experiment_id, new=True, incomplete=again)

    def _experiment(self, name: str) -> Experiment:
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            experiment = self._create_experiment(name)
        if experiment.lifecycle_stage == LifecycleStage.DELETED:
            log.warning("experiment %r was deleted in MLflow and is restored for a new run", name)
            self._client.restore_experiment(experiment.experiment_id)
        return experiment

    def _create_experiment(self, name: str) -> Experiment:
        try:
            identity = self._client.create_experiment(
                name, artifact_location=self._artifact_location(name), tags=_EXPERIMENT_TAGS
            )
        except MlflowException:
            # Somebody else may have been quicker.
            experiment = self._client.get_experiment_by_name(name)
            if experiment is None:
                raise
            return experiment
        return self._client.get_experiment(identity)

    def _artifact_location(self, name: str) -> str | None:
        if self._artifact_root is None:
            return None
        readable = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:40]
        distinct = hashlib.sha256(name.encode()).hexdigest()[:8]
        return (self._artifact_root / f"{readable}-{distinct}".lstrip("-")).as_uri()


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:  # runs from its source, not installed
        return "unknown"
