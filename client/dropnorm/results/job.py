"""TrainingJob: the resource as its reader sees it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Literal

from dropnorm.results._base import ResultModel
from dropnorm.results.evaluation import Evaluation
from dropnorm.spec import TrainingSpec


class State(StrEnum):
    """Where a job is in its life. A lost worker is not a failure: the job is QUEUED again."""

    QUEUED = "queued"
    """Waits for a slot."""
    RUNNING = "running"
    """A worker trains it."""
    PAUSING = "pausing"
    """Its worker has been asked to write a checkpoint and stop."""
    PAUSED = "paused"
    """Holds no slot; goes on from its checkpoint when resumed."""
    CANCELLING = "cancelling"
    """Its worker has been asked to end."""
    SUCCEEDED = "succeeded"
    """Done; the evaluation is there."""
    FAILED = "failed"
    """Ended by an error; `error` says which."""
    CANCELLED = "cancelled"
    """Ended by request; its history and last checkpoint are kept."""

    @property
    def terminal(self) -> bool:
        """Nothing follows."""
        return self in (State.SUCCEEDED, State.FAILED, State.CANCELLED)

    @property
    def active(self) -> bool:
        """A worker holds it."""
        return self in (State.RUNNING, State.PAUSING, State.CANCELLING)


Phase = Literal["loading_data", "building", "tuning", "training", "validating", "testing"]


class Progress(ResultModel):
    """How far an attempt has come."""

    phase: Phase
    """What the worker is doing."""
    epoch: int
    """Epochs finished."""
    epochs: int
    """Epochs asked for."""
    step: int
    """Optimizer steps done."""
    steps: int
    """Optimizer steps in all."""

    def __str__(self) -> str:
        phase = self.phase.replace("_", " ")
        return f"{phase}, epoch {self.epoch} of {self.epochs}, step {self.step} of {self.steps}"


class JobError(ResultModel):
    """Why a job failed, in the terms of google.rpc.Status."""

    code: int
    """Canonical gRPC code: 3 INVALID_ARGUMENT, 8 RESOURCE_EXHAUSTED, 10 ABORTED, 13 INTERNAL and so on."""
    reason: str
    """What kind of failure, UPPER_SNAKE. The job's own: DIVERGED, OUT_OF_MEMORY, BAD_DATA, INVALID_SPEC, TIME_LIMIT,
    RESULT_TOO_LARGE, INTERNAL. The world's: WORKER_LOST, WORKER_HUNG, SERVICE_LOST (the service was killed each
    time), DEVICE_ERROR, DATA_UNAVAILABLE, IO_ERROR, DISK_FULL, NOT_STARTED (no worker could be made)."""
    message: str
    """What happened and what to do, one or two sentences."""
    metadata: dict[str, str] = {}
    """The values the message speaks of, by name."""

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


class TrainingJob(ResultModel):
    """One requested training of one model."""

    name: str
    """Resource name, `trainingJobs/{id}`."""
    display_name: str
    """Name for people."""
    experiment: str
    """MLflow experiment its run belongs to."""
    labels: dict[str, str] = {}
    """Labels for filtering."""
    priority: int = 0
    """Order in the queue: higher first, then older first."""
    spec: TrainingSpec
    """What to train, every default filled in."""
    spec_digest: str
    """SHA-256 (hex) of the resolved spec."""
    state: State
    """Where it is in its life."""
    attempt: int = 0
    """Number of the current or last attempt, from 1; 0 before the first."""
    progress: Progress | None = None
    """How far the current or last attempt has come."""
    error: JobError | None = None
    """Why it failed."""
    evaluation: Evaluation | None = None
    """Its result, once it has succeeded."""
    mlflow_experiment_id: str | None = None
    """MLflow's id of the experiment, once the run is made."""
    mlflow_run_id: str | None = None
    """MLflow's id of the run, once it is made."""
    create_time: datetime
    """When it was accepted."""
    start_time: datetime | None = None
    """When its first attempt began."""
    end_time: datetime | None = None
    """When it reached a final state."""
    update_time: datetime
    """When it last changed."""
    last_sequence: int = 0
    """Number of its journal's newest event."""
    owner: str = "local"
    """User who made it."""
    shared: bool = False
    """Whether the project's other users may see and use it, but not change it."""
    expire_time: datetime | None = None
    """When it is deleted, known once it has ended; None: never."""
    ttl: int | None = None
    """Seconds for which it is kept after its end; None: for ever."""

    @property
    def id(self) -> str:
        """The last part of the resource name."""
        return self.name.rpartition("/")[2]

    def __repr__(self) -> str:
        where = f" ({self.progress})" if self.progress and self.state == State.RUNNING else ""
        return f"<TrainingJob {self.id} {self.display_name!r}: {self.state}{where}>"

    __str__ = __repr__
