"""Writes the files of an ended job: spec, error, evaluation, pictures and model."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from mlflow import MlflowClient
from mlflow.entities import Metric

from dropnorm.results import TrainingJob
from dropnorm_service.log_context import bound
from dropnorm_service.tracking.errors import MlflowUnavailable
from dropnorm_service.tracking.messages import Batch, JobContext
from dropnorm_service.tracking.mirror.changes import MODEL_TAG, cut
from dropnorm_service.tracking.mirror.guard import Guard, Refused
from dropnorm_service.tracking.mirror.locate import RunLocator, RunRef
from dropnorm_service.tracking.mirror.metrics import final_metrics

if TYPE_CHECKING:
    from dropnorm_service.tracking.mirror.model import ModelPublisher
    from dropnorm_service.training import Pictures

_PATIENCE = (
    40  # about twenty minutes of the feed's retries: artifact stores have outages of their own
)

FILES_TAG = "dropnorm.files"
"""Absent, or `failed` with the reason why some of the run's files are missing."""

log = logging.getLogger(__name__)


class ArtifactRecorder:
    """Adds the files of ended jobs to their runs. A job that comes again gets the same files and the same model."""

    def __init__(self, client: MlflowClient) -> None:
        """A recorder.

        Args:
            client: the store.
        """
        self._client = client
        self._locator = RunLocator(client, artifact_root=None)
        self._guard = Guard(client, patience=_PATIENCE)
        self._publisher: ModelPublisher | None = None

    def record(self, batch: Batch) -> None:
        """Write the files of each job that the batch ends.

        Raises:
            MlflowUnavailable: the batch is to be recorded again later.
        """
        for event in batch.events:
            context = batch.jobs.get(event.training_job)
            if context is None:
                continue
            with bound(job=context.job.id):
                run = self._locate(context.job)
                if run is not None and batch.fatal:
                    self._give_up(run, context.job)
                elif run is not None:
                    self._record(run, context, event.time)

    def _locate(self, job: TrainingJob) -> RunRef | None:
        try:
            run = self._guard(f"the run of {job.name}", lambda: self._locator.find(job))
        except Refused as error:
            log.error("left out in MLflow: %s", error)
            return None
        self._locator.forget(job)
        return run

    def _record(self, run: RunRef, context: JobContext, ended: datetime) -> None:
        job = context.job
        try:
            self._guard(f"files of {job.name}", lambda: self._add_files(run, context))
        except Refused as error:
            log.error("left out in MLflow: %s", error)
            self._tag(run, job, FILES_TAG, f"failed: {error}")
        if job.evaluation is not None:
            verdict = self._add_model(run, context, final_metrics(job.evaluation, ended))
            self._tag(run, job, MODEL_TAG, verdict)

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
