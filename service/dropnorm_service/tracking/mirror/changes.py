"""What a job's events mean for its run, merged into as few writes as possible."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

import numpy as np
from mlflow.data.schema import TensorDatasetSchema
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric
from mlflow.types import Schema, TensorSpec
from mlflow.utils.mlflow_tags import (
    MLFLOW_DATASET_CONTEXT,
    MLFLOW_RUN_NOTE,
    MLFLOW_SOURCE_NAME,
    MLFLOW_SOURCE_TYPE,
)

from dropnorm.results import (
    DatasetLoaded,
    DatasetSummary,
    EpochCompleted,
    Event,
    State,
    StateChanged,
    TrainingJob,
    Warned,
)
from dropnorm.spec import Compute
from dropnorm_service.tracking.mirror.metrics import epoch_metrics, final_metrics
from dropnorm_service.tracking.mirror.parameters import parameters

MODEL_TAG = "dropnorm.model"
"""`pending` from the end of the job until its model is logged, then `ready`, or `failed` with the reason."""
DEVICE_TAG = "dropnorm.device"
"""`cpu` or `cuda` as soon as that is known; with the evaluation the device's name takes its place."""

_STATUS = {
    State.QUEUED: "SCHEDULED",  # between two attempts
    State.RUNNING: "RUNNING",
    State.PAUSING: "RUNNING",
    State.PAUSED: "SCHEDULED",
    State.CANCELLING: "RUNNING",
    State.SUCCEEDED: "FINISHED",
    State.FAILED: "FAILED",
    State.CANCELLED: "KILLED",
}
_MAX_DIGEST_LENGTH = 36
_MAX_TAG_LENGTH = 5000


class Status(NamedTuple):
    """MLflow's status of a run, and since when it has ended."""

    name: str
    ended: datetime | None


@dataclass
class RunChanges:
    """Everything to be written to one run. Writing it again changes nothing."""

    parameters: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: list[Metric] = field(default_factory=list)
    final: list[Metric] = field(default_factory=list)
    """Metrics of the evaluation: of each a run has one point."""
    datasets: list[DatasetInput] = field(default_factory=list)
    status: Status | None = None

    @classmethod
    def of(cls, job: TrainingJob, events: Iterable[Event]) -> RunChanges:
        """What the events of one job, in their order, come to."""
        changes = cls()
        for event in events:
            changes._add(job, event)
        return changes

    def _add(self, job: TrainingJob, event: Event) -> None:
        match event.payload:
            case StateChanged() as change:
                self._add_state(job, event, change)
            case DatasetLoaded(dataset=dataset):
                self.datasets.append(_dataset_input(dataset))
                self.tags["dropnorm.dataset_digest"] = dataset.digest or ""
            case EpochCompleted() as epoch:
                self.metrics += epoch_metrics(epoch, event.time)
                if epoch.system is not None:
                    on_gpu = epoch.system.gpu_memory_bytes is not None
                    self.tags[DEVICE_TAG] = "cuda" if on_gpu else "cpu"
            case Warned(code=code, message=message):
                self.tags[f"dropnorm.warning.{code}"] = message

    def _add_state(self, job: TrainingJob, event: Event, change: StateChanged) -> None:
        state = change.state
        self.status = Status(_STATUS[state], event.time if state.terminal else None)
        self.tags["dropnorm.state"] = state.value
        self.tags["dropnorm.attempt"] = str(event.attempt)
        if state is State.RUNNING:
            self.parameters = parameters(job.spec)
            if kind := _device(job.spec.compute):
                self.tags[DEVICE_TAG] = kind
        elif job.evaluation is not None and state is State.SUCCEEDED:
            self.final = final_metrics(job.evaluation, event.time)
            self.tags[DEVICE_TAG] = job.evaluation.cost.device
            self.tags["dropnorm.stopped_early"] = json.dumps(job.evaluation.stopped_early)
            self.tags[MODEL_TAG] = "pending"
        elif change.error is not None and state is State.QUEUED:
            self.tags[f"dropnorm.attempt_{event.attempt}_lost"] = str(change.error)
        elif change.error is not None:
            self.tags["dropnorm.error"] = self.tags[MLFLOW_RUN_NOTE] = str(change.error)


def cut(value: str) -> str:
    """A tag's value within MLflow's limit."""
    return value if len(value) <= _MAX_TAG_LENGTH else value[: _MAX_TAG_LENGTH - 1] + "…"


def _device(compute: Compute) -> str | None:
    """What a spec says of the device; None: any, and the first epoch will tell."""
    if compute.gpus is not None:
        return "cuda" if compute.gpus else "cpu"
    return None if compute.device == "auto" else compute.device


def _dataset_input(summary: DatasetSummary) -> DatasetInput:
    values = "int64" if summary.sequences else "float32"
    parts = {"features": _schema(values, (-1, *summary.input_shape)), "targets": _targets(summary)}
    schema = TensorDatasetSchema(**{name: part for name, part in parts.items() if part})
    samples = (summary.train_samples, summary.validation_samples, summary.test_samples)
    dataset = Dataset(
        name=summary.name,
        digest=(summary.digest or "unknown")[:_MAX_DIGEST_LENGTH],
        source_type="code",
        source=json.dumps({"tags": {MLFLOW_SOURCE_TYPE: "JOB", MLFLOW_SOURCE_NAME: "dropnorm"}}),
        schema=json.dumps(schema.to_dict()),
        profile=json.dumps({"num_rows": sum(samples), **summary.model_dump(mode="json")}),
    )
    return DatasetInput(dataset, [InputTag(MLFLOW_DATASET_CONTEXT, "training")])


def _targets(summary: DatasetSummary) -> Schema | None:
    """The form of a data set's targets; None: it has none."""
    if summary.sequences and summary.sequences.target_length:
        return _schema("int64", (-1, summary.sequences.target_length))
    if not summary.outputs:
        return None
    if summary.task == "classification":
        return _schema("int64", (-1,))
    return _schema("float32", (-1, summary.outputs))


def _schema(dtype: str, shape: tuple[int, ...]) -> Schema:
    return Schema([TensorSpec(np.dtype(dtype), shape)])
