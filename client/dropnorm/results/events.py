"""The entries of a job's journal. Numbered from 1 without a gap, never changed."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from dropnorm.results import _format, job
from dropnorm.results._base import ResultModel
from dropnorm.results.evaluation import DatasetSummary, EpochMetrics, Evaluation


class StateChanged(ResultModel):
    """The job moved to another state."""

    kind: Literal["state"] = "state"
    state: job.State
    """The new state."""
    message: str = ""
    """Why, for people; empty when the state says it all."""
    error: job.JobError | None = None
    """The failure, with FAILED; or why an attempt was lost, with QUEUED."""

    def __str__(self) -> str:
        why = str(self.error) if self.error else self.message
        return f"{self.state}: {why}" if why else str(self.state)


class Progressed(ResultModel):
    """The attempt came further: at each new phase, at the first optimizer step, then at most once a second; once in ten
    seconds when it has taken long."""

    kind: Literal["progress"] = "progress"
    progress: job.Progress
    """How far."""

    def __str__(self) -> str:
        return str(self.progress)


class DatasetLoaded(ResultModel):
    """The data is on the device."""

    kind: Literal["dataset"] = "dataset"
    dataset: DatasetSummary
    """What was loaded."""

    def __str__(self) -> str:
        data = self.dataset
        return (
            f"{data.name}: {data.train_samples:,} training, {data.validation_samples:,} validation, "
            f"{data.test_samples:,} test samples"
        )


class SystemMetrics(ResultModel):
    """Load of this job's own process and device over the last epoch."""

    cpu_percent: float
    """CPU time over wall time; 100 is one core."""
    memory_bytes: int
    """Resident memory of the worker process."""
    gpu_percent: float | None = None
    """Utilisation of the job's GPU, 0 to 100; absent without a GPU or without NVML."""
    gpu_memory_bytes: int | None = None
    """Memory allocated on the job's GPU; absent without a GPU."""


class EpochCompleted(ResultModel):
    """An epoch is done."""

    kind: Literal["epoch"] = "epoch"
    metrics: EpochMetrics
    """What it measured."""
    system: SystemMetrics | None = None
    """What it cost the machine; absent when the library runs alone."""

    def __str__(self) -> str:
        metrics = self.metrics
        accuracy = metrics.validation_accuracy
        return (
            f"epoch {metrics.epoch}: train loss {_format.number(metrics.train_loss)}, "
            f"validation loss {_format.number(metrics.validation_loss)}"
            + (f", validation accuracy {accuracy:.4f}" if accuracy is not None else "")
            + f", {_format.count(metrics.samples_per_second)} samples/s"
        )


class LogLine(ResultModel):
    """Something worth telling."""

    kind: Literal["log"] = "log"
    level: Literal["debug", "info", "error"] = "info"
    """How grave."""
    message: str
    """One or more lines of text."""

    def __str__(self) -> str:
        return self.message


class Warned(ResultModel):
    """Something is probably not as wished, and the job goes on."""

    kind: Literal["warning"] = "warning"
    code: str
    """Stable code, UPPER_SNAKE, the same as a plan's lint where there is one."""
    field: str = ""
    """Path of the spec's field it is about; empty: none."""
    message: str
    """What and why, one sentence."""

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class CheckpointWritten(ResultModel):
    """The attempt can go on from here."""

    kind: Literal["checkpoint"] = "checkpoint"
    epoch: int
    """Epochs finished."""
    step: int
    """Optimizer steps done."""
    seconds: float | None = None
    """From its copy of the training's state until it was on the disk; absent where an attempt tells from which
    checkpoint it goes on, and from journals of before."""
    size_bytes: int | None = None
    """What it takes on the disk; likewise."""

    def __str__(self) -> str:
        return f"checkpoint after epoch {self.epoch}, step {self.step}"


class Evaluated(ResultModel):
    """The result is there. A job has at most one."""

    kind: Literal["evaluation"] = "evaluation"
    evaluation: Evaluation
    """The result."""

    def __str__(self) -> str:
        return _format.evaluation_title(self.evaluation)


class Tracked(ResultModel):
    """MLflow has a run for the job."""

    kind: Literal["tracking"] = "tracking"
    mlflow_experiment_id: str
    """MLflow's id of the experiment."""
    mlflow_run_id: str
    """MLflow's id of the run."""

    def __str__(self) -> str:
        return f"MLflow run {self.mlflow_run_id} in experiment {self.mlflow_experiment_id}"


class SharingChanged(ResultModel):
    """The job is shared from now on, or no longer."""

    kind: Literal["sharing"] = "sharing"
    shared: bool
    """Whether the project's other users may see and use it."""

    def __str__(self) -> str:
        return "shared with the project" if self.shared else "no longer shared"


Payload = Annotated[
    StateChanged
    | Progressed
    | DatasetLoaded
    | EpochCompleted
    | LogLine
    | Warned
    | CheckpointWritten
    | Evaluated
    | Tracked
    | SharingChanged,
    Field(discriminator="kind"),
]


class Event(ResultModel):
    """One numbered entry of a job's journal."""

    training_job: str
    """Resource name of the job."""
    sequence: int
    """Number in the job's journal, from 1, without a gap."""
    time: datetime
    """When it happened."""
    attempt: int
    """Attempt it belongs to; 0 before the first."""
    payload: Payload
    """What happened."""

    @property
    def kind(self) -> str:
        """Kind of the payload; `unknown` for one that only a newer version of this package can read."""
        # wire leaves such a payload out, whatever its type says.
        return getattr(self.payload, "kind", "unknown")

    def __str__(self) -> str:
        time = f"{self.time.astimezone():%H:%M:%S}"
        return f"{self.sequence:>4}  {time}  {self.kind:<10}  {self.payload}"

    def __repr__(self) -> str:
        return f"<Event {self.sequence} {self.kind}: {self.payload}>"
