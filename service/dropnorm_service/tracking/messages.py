"""What the server and its mirror processes say to each other: one JSON object a line."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from dropnorm.results import Event, Model, TrainingJob
from dropnorm_service.tracking.config import TrackingConfig


class Role(StrEnum):
    """What a mirror process writes."""

    RUNS = "runs"
    """Runs, parameters, metrics, tags, data sets: everything that goes to the tracking store, in milliseconds."""
    ARTIFACTS = "artifacts"
    """Files, pictures and the model of an ended job, which take seconds and go to the artifact store."""
    REGISTRY = "registry"
    """Registered models: versions and aliases, as they are asked for."""

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


class Rewriting(Message):
    """A job's whole journal is sent, in parts, since its run is gone."""

    first: bool
    """This is the first part, for which its run is made."""
    last: bool
    """Nothing more follows; the run has all."""


class JobContext(Message):
    """What a mirror process needs to know of a job besides its events."""

    job: TrainingJob
    folder: Path
    rewriting: Rewriting | None = None
    """None: its events are news."""


class Batch(Message):
    """Events in the order of the feed, with what they need."""

    events: tuple[Event, ...]
    jobs: dict[str, JobContext]
    """By resource name; nothing for a job that is gone for good."""
    fatal: bool = False
    """Processes have died of it. Nothing of it is to be written but that it is missing."""


class Register(Message):
    """Make the model of a job a version of a registered model."""

    kind: Literal["register"] = "register"
    model_id: str
    training_job: str
    """Name of the job."""
    run_id: str
    """MLflow's id of its run."""
    sha256: str
    """SHA-256 (hex) of the weights; a model with the same ones is this version already."""
    alias: str
    """Means the version from then on; empty: none does."""


class FindModel(Message):
    """Look a registered model up."""

    kind: Literal["find"] = "find"
    model_id: str


class ListRegistered(Message):
    """List registered models by name."""

    kind: Literal["list"] = "list"
    page_size: int
    page_token: str


class SetAlias(Message):
    """Let an alias mean a version."""

    kind: Literal["set_alias"] = "set_alias"
    model_id: str
    alias: str
    version: int


class DeleteAlias(Message):
    """Take an alias away."""

    kind: Literal["delete_alias"] = "delete_alias"
    model_id: str
    alias: str


RegistryRequest: TypeAlias = Register | FindModel | ListRegistered | SetAlias | DeleteAlias
registry_requests: TypeAdapter[RegistryRequest] = TypeAdapter(
    Annotated[RegistryRequest, Field(discriminator="kind")]
)


class RegistryPage(Message):
    """Registered models: the one that was spoken of, or a page of all."""

    kind: Literal["models"] = "models"
    models: tuple[Model, ...]
    next_page_token: str = ""


class Pending(Message):
    """MLflow does not have the model of the job yet."""

    kind: Literal["pending"] = "pending"


class Missing(Message):
    """The registry has nothing of that name."""

    kind: Literal["missing"] = "missing"
    reason: str


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
    """Everything in the batch is durable in MLflow, or was given up and logged, but for some jobs, by their names."""

    kind: Literal["done"] = "done"
    late: dict[str, str] = {}
    """Jobs of which MLflow does not take something now, while it takes other things, and why."""
    gone: tuple[str, ...] = ()
    """Jobs whose runs are gone, or have only their beginning: their whole journals are wanted."""


class Progress(Message):
    """Something was done of what takes long; the answer is still to come."""

    kind: Literal["progress"] = "progress"


class Unavailable(Message):
    """MLflow does not answer as it should; the batch is to be sent again later, nothing will be doubled."""

    kind: Literal["unavailable"] = "unavailable"
    reason: str


class LogRecord(Message):
    """Something for the server's log."""

    kind: Literal["log"] = "log"
    level: int
    logger: str
    message: str
    job: str = ""
    """Id of the job that it is for; empty: of none."""


Reply: TypeAlias = (
    Ready | RunMade | Progress | Done | Unavailable | LogRecord | RegistryPage | Pending | Missing
)
replies: TypeAdapter[Reply] = TypeAdapter(Annotated[Reply, Field(discriminator="kind")])
