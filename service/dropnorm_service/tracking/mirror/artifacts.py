"""Writes the files of an ended job: spec, error, evaluation, pictures and model."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from mlflow import MlflowClient
from mlflow.entities import Metric

from dropnorm.results import TrainingJob
from dropnorm_service.log_context import bound
from dropnorm_service.tracking.errors import MlflowUnavailable, NotTaken
from dropnorm_service.tracking.messages import Batch, Done, JobContext
from dropnorm_service.tracking.mirror.changes import MODEL_TAG, cut
from dropnorm_service.tracking.mirror.guard import Guard, Refused
from dropnorm_service.tracking.mirror.locate import RunLocator, RunRef
from dropnorm_service.tracking.mirror.metrics import final_metrics

if TYPE_CHECKING:
    from dropnorm_service.tracking.mirror.model import ModelPublisher
    from dropnorm_service.training import Pictures

FILES_TAG = "dropnorm.files"
"""Absent, or `failed` with the reason why some of the run's files are missing."""

log = logging.getLogger(__name__)


class ArtifactRecorder:
    """Adds the files of ended jobs to their runs. A job that comes again gets the same files and the same model."""

    def __init__(self, client: MlflowClient, progress: Callable[[], None] = lambda: None) -> None:
        """A recorder.

        Args:
            client: the store.
            progress: told after each call to the store.
        """
        self._client = client
        self._locator = RunLocator(client, artifact_root=None)
        self._guard = Guard(client, progress=progress)
        self._publisher: ModelPublisher | None = None

    def record(self, batch: Batch) -> Done:
        """Write the files of each job that the batch ends.

        Returns:
            What could not be written of single jobs.

        Raises:
            MlflowUnavailable: the batch is to be recorded again later.
        """
        late = {}
        for event in batch.events:
            context = batch.jobs.get(event.training_job)
            if context is None:
                continue
            with bound(job=context.job.id):
                try:
                    self._record(context, event.time, fatal=batch.fatal)
                except NotTaken as error:
                    late[context.job.name] = cut(str(error))
        return Done(late=late)

    def _locate(self, job: TrainingJob) -> RunRef | None:
        try:
            run = self._guard(f"the run of {job.name}", lambda: self._locator.find(job))
        except Refused as error:
            log.error("left out in MLflow: %s", error)
            return None
        self._locator.forget(job)
        return run

    def _record(self, context: JobContext, ended: datetime, *, fatal: bool) -> None:
        run = self._locate(context.job)
        if run is None:
            return
        if fatal:
            self._give_up(run, context.job)
            return
        not_taken: NotTaken | None = None
        try:
            self._record_files(run, context)
        except NotTaken as error:  # the model is tried meanwhile, so that no wait follows another
            not_taken = error
        if context.job.evaluation is not None:
            verdict = self._add_model(run, context, final_metrics(context.job.evaluation, ended))
            self._tag(run, context.job, MODEL_TAG, verdict)
        if not_taken is not None:
            raise not_taken

    def _record_files(self, run: RunRef, context: JobContext) -> None:
        job = context.job
        try:
            self._guard(f"files of {job.name}", lambda: self._add_files(run, context))
            self._guard(f"{FILES_TAG} of {job.name}", lambda: self._untag(run, FILES_TAG))
        except Refused as error:
            log.error("left out in MLflow: %s", error)
            self._tag(run, job, FILES_TAG, f"failed: {error}")

    def _untag(self, run: RunRef, tag: str) -> None:
        if tag in self._client.get_run(run.run_id).data.tags:
            self._client.delete_tag(run.run_id, tag)

    def _give_up(self, run: RunRef, job: TrainingJob) -> None:
        reason = "failed: the process that writes it died, again and again"
        self._tag(run, job, FILES_TAG, reason)
        if job.evaluation is not None:
            self._tag(run, job, MODEL_TAG, reason)

    def _tag(self, run: RunRef, job: TrainingJob, tag: str, value: str) -> None:
        try:
            self._guard(
                f"{tag} of {job.name}", lambda: self._client.set_tag(run.run_id, tag, cut(value))
            )
        except Refused as error:
            log.error("left out in MLflow: %s", error)

    def _add_files(self, run: RunRef, context: JobContext) -> None:
        with tempfile.TemporaryDirectory(prefix="dropnorm-") as name:
            _write_files(context.job, context.folder / "model", Path(name))
            self._client.log_artifacts(run.run_id, name)

    def _add_model(self, run: RunRef, context: JobContext, metrics: Sequence[Metric]) -> str:
        from dropnorm_service.tracking.mirror.model import ModelPublisher  # loads torch

        if self._publisher is None:
            self._publisher = ModelPublisher(self._client, self._guard)
        try:
            self._publisher.publish(run, context.job, context.folder / "model", metrics)
        except MlflowUnavailable:
            raise
        except (
            Exception
        ) as error:  # torch has many kinds, and the job's other results are as good without
            log.exception("the model of %s is not in MLflow", context.job.name)
            return f"failed: {error}"
        return "ready"


def _write_files(job: TrainingJob, model: Path, folder: Path) -> None:
    from dropnorm_service.tracking.mirror.pictures import draw, tiles  # loads matplotlib

    spec = job.spec.model_dump(mode="json", exclude_none=True)
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec, sort_keys=False), "utf-8")
    if job.error is not None:
        (folder / "error.json").write_text(job.error.model_dump_json(indent=2), "utf-8")
    if job.evaluation is not None:
        (folder / "evaluation.json").write_text(job.evaluation.model_dump_json(indent=2), "utf-8")
        plots = folder / "plots"
        plots.mkdir()
        draw(job.evaluation, job.display_name, plots)
        for name, images in _pictures(model).items():
            tiles(images.numpy(), plots / f"{name}.png")


def _pictures(model: Path) -> Pictures:
    from dropnorm_service.training import load_pictures  # loads torch

    return load_pictures(model)
