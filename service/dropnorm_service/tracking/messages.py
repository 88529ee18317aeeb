"""What the server and its mirror processes say to each other: one JSON object a line."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from dropnorm.results import Event, TrainingJob
from dropnorm_service.tracking.config import TrackingConfig


class Role(StrEnum):
    """What a mirror process writes."""

    RUNS = "runs"
    """Runs, parameters, metrics, tags, data sets: everything that goes to the tracking store, in milliseconds."""
    ARTIFACTS = "artifacts"
    """Files, pictures and the model of an ended job, which take seconds and go to the artifact store."""

    @property
    def cursor(self) -> str:
        """Name of its cursor in the journal."""
        return "mlflow" if self is Role.RUNS else f"mlflow-{self}"


class Message(BaseModel):
    """One line."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")


class Setup(Message):
    """The first line to a mirror process."""

    role: Role
    tracking_uri: str
    artifact_root: Path | None
    lock_file: Path
    """Held by the process as long as it lives: one of each role at a time."""
    store_lock: Path
    """Held while the store is opened."""

    @classmethod
    def of(cls, role: Role, config: TrackingConfig) -> Setup:
        """A process of a role on a store."""
        return cls(
            role=role,
            tracking_uri=config.tracking_uri,
            artifact_root=config.artifact_root,
            lock_file=config.folder / f"{role.cursor}.lock",
            store_lock=config.store_lock,
        )


class JobContext(Message):
    """What a mirror process needs to know of a job besides its events."""

    job: TrainingJob
    folder: Path


class Batch(Message):
    """Events in the order of the feed, with what they need."""

    events: tuple[Event, ...]
    jobs: dict[str, JobContext]
    """By resource name; nothing for a job that is gone for good."""
    fatal: bool = False
    """Processes have died of it. Nothing of it is to be written but that it is missing."""


class Ready(Message):
    """The store can be used."""

    kind: Literal["ready"] = "ready"


class RunMade(Message):
    """A job has a run that its row does not name yet."""

    kind: Literal["run"] = "run"
    job_id: str
    experiment_id: str
    run_id: str


class Done(Message):
    """Everything in the batch is durable in MLflow, or was given up and logged."""

    kind: Literal["done"] = "done"


class Unavailable(Message):
    """MLflow does not answer as it should; the batch is to be sent again later, nothing will be doubled."""

    kind: Literal["unavailable"] = "unavailable"
    reason: str


class LogRecord(Message):
    """Something for the server's log."""

    kind: Literal["log"] = "log"
    level: int
    message: str


Reply: TypeAlias = Ready | RunMade | Done | Unavailable | LogRecord
replies: TypeAdapter[Reply] = TypeAdapter(Annotated[Reply, Field(discriminator="kind")])
