"""What the domain asks of the outside world. Adapters are in `store` and `workers`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

from dropnorm.results import (
    Event,
    JobError,
    Model,
    ModelExport,
    ModelVersion,
    Payload,
    Plan,
    Prediction,
    Slot,
    State,
    TrainingJob,
)
from dropnorm.spec import DropoutSampling, ExportSettings, Tensor, TrainingSpec
from dropnorm_service.jobs.callers import LOCAL

Clock = Callable[[], datetime]
"""The time now, in UTC."""

Order = Literal["checkpoint", "pause", "cancel"]
"""What a worker can be told between two steps."""


CHECKPOINTS = "checkpoints"
"""The part of a job's folder that its attempts leave to each other; it goes when the job has succeeded."""

MODEL = "model"
"""The part of a job's folder that its success leaves: the trained model."""

EXPORTS = "exports"
"""The part of a job's folder that holds its model in other forms, each in a folder of its own."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One attempt to be run."""

    job_id: str
    attempt: int
    spec: TrainingSpec
    folder: Path
    """The job's own folder: its CHECKPOINTS and, in the end, its model."""
    epochs_told: int = 0
    """Epochs that the job's journal has; a checkpoint may have more, which the attempt tells first."""


@dataclass(frozen=True)
class Finished:
    """The worker did all it was asked; the Evaluated payload came before this."""


@dataclass(frozen=True)
class Stopped:
    """The worker obeyed `pause` or `cancel`; its checkpoint is written."""

    order: Order


@dataclass(frozen=True)
class Broken:
    """The job's own fault: it would fail the same way again."""

    error: JobError


@dataclass(frozen=True)
class Lost:
    """The world's fault: the worker was killed, hung, or its device broke. Try again."""

    error: JobError


Outcome = Finished | Stopped | Broken | Lost


class Executor(Protocol):
    """Runs attempts in slots."""

    def slots(self) -> Sequence[Slot]:
        """Every slot and what it runs now."""

    def fits(self, spec: TrainingSpec) -> bool:
        """Whether a slot is free now that the spec can run in; it looks at `device` and `gpus` of `spec.compute`."""

    def obstacle(self, spec: TrainingSpec) -> str | None:
        """Why the spec can never run here (too few GPUs), a sentence; None when it can."""

    def device(self, spec: TrainingSpec) -> Literal["cpu", "cuda"]:
        """The kind of slot that the spec takes; it looks at `device` and `gpus` of `spec.compute`."""

    def rest(self) -> float | None:
        """Seconds until a slot is used again that is passed over since its device broke; None: there is none."""

    def run(self, launch: Launch) -> AsyncGenerator[tuple[datetime, Payload] | Outcome, None]:
        """Run one attempt: its payloads, each with its time, and one Outcome as the last item.

        The slot is taken, and the job can be given orders, from the first step of the iteration
        on, before it first waits; the slot is free again when the iteration has ended. Never raises
        for what a worker does. A caller that closes the generator ends the attempt.
        """

    def order(self, job_id: str, order: Order) -> None:
        """Tell the worker of a running job what to do; without effect when the job has none."""


class Planner(Protocol):
    """Answers what a spec comes to."""

    async def plan(self, spec: TrainingSpec, *, uploads: bool = True, user: str = "") -> Plan:
        """The plan of a spec.

        Args:
            spec: what would be trained.
            uploads: whether there are uploaded data sets; false: as if there were none.
            user: who asks; users take turns.

        Raises:
            InvalidSpecError: the spec does not fit together or does not fit its data; it names
                every field.
            PlannerUnavailable: no answer within the limit.
        """


class Predictor(Protocol):
    """Runs trained models."""

    async def predict(
        self,
        training_job: str,
        folder: Path,
        inputs: Tensor,
        sampling: DropoutSampling | None,
        *,
        user: str = "",
    ) -> Prediction:
        """What a model says of raw inputs.

        Args:
            training_job: name of the job whose model it is.
            folder: where the model is.
            inputs: `[inputs, *shape of one]`.
            sampling: several passes with dropout on; None: one with dropout off.
            user: who asks; users take turns.

        Raises:
            InvalidSpecError: the inputs are not what the model takes, or it drops nothing; names the fields.
            TooManyInputs: the outputs for so many do not fit into an answer.
            ModelUnusable: the model is not there, or damaged.
            PredictorUnavailable: no answer within the limit.
        """


class Exporter(Protocol):
    """Writes trained models in other forms."""

    async def export(
        self,
        training_job: str,
        model: Path,
        settings: ExportSettings,
        *,
        name: str,
        folder: Path,
        user: str = "",
    ) -> ModelExport:
        """Write a model, and prove that it predicts what the original does.

        Args:
            training_job: name of the job whose model it is.
            model: where the model is.
            settings: in which form.
            name: resource name of the export.
            folder: where its file and what is known of it go, in place of what was there.
            user: who asks; users take turns.

        Raises:
            ModelUnusable: the model is not there, or damaged, or the data that it was trained on is gone.
            CannotExport: it does not go into that form, or not exactly enough.
            DiskFull: there was no room for it.
            ExporterUnavailable: no answer within the limit.
        """


@dataclass(frozen=True)
class ModelPage:
    """Registered models, and the token of the next page; only an empty one ends."""

    models: tuple[Model, ...] = ()
    next_page_token: str = ""


class Registry(Protocol):
    """Registered models: versions and aliases. Every method may raise RegistryUnavailable."""

    async def register(
        self, model_id: str, job: TrainingJob, *, sha256: str, alias: str
    ) -> ModelVersion | None:
        """Make a job's model a version, unless it is one already; None: it is not there yet, ask again.

        Args:
            model_id: the registered model, made when it is missing.
            job: its run is known.
            sha256: of the weights.
            alias: means the version from then on; empty: none does.

        Raises:
            ModelUnusable: there will be no such model.
        """

    async def get(self, model_id: str) -> Model:
        """A registered model with its versions, the newest first.

        Raises:
            ModelNotFound: there is none.
        """

    async def list(self, page_size: int, page_token: str) -> ModelPage:
        """A page of registered models, by name."""

    async def set_alias(self, model_id: str, alias: str, version: int) -> Model:
        """Let an alias mean a version, and no other.

        Raises:
            ModelNotFound: there is no such version.
        """

    async def delete_alias(self, model_id: str, alias: str) -> Model:
        """Take an alias away.

        Raises:
            ModelNotFound: there is none.
        """


@dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """Whose a registered model is, and which versions the service itself has made.

    It is kept beside the registry, where others may change what they like.
    """

    model_id: str
    owner: str
    shared: bool
    versions: frozenset[tuple[str, str]]
    """The job's id and the SHA-256 of each."""


class ModelOwners(Protocol):
    """Durable records of registered models. Every method may raise StoreUnavailable."""

    async def models(self, model_ids: Sequence[str]) -> Mapping[str, ModelRecord]:
        """Those records of these models that there are, by id."""

    async def put_model(self, record: ModelRecord) -> None:
        """Write a model's record in place of the one that is there."""


@dataclass(frozen=True, kw_only=True)
class RequestRecord:
    """An accepted request_id, and what it was accepted for."""

    request_id: str
    digest: str
    """SHA-256 of the request's content: the same id with other content is refused."""
    job_id: str
    owner: str = LOCAL.user
    """User who sent it; others have request ids of their own."""


class RequestAccepted(Exception):
    """A request_id was accepted before, for what `record` says."""

    def __init__(self, record: RequestRecord) -> None:
        super().__init__(record.request_id)
        self.record = record


@dataclass(frozen=True, kw_only=True)
class Change:
    """What one transaction writes: a job's new row and the events that led to it."""

    job: TrainingJob
    events: tuple[Event, ...] = ()
    insert: bool = False
    """The job is new; otherwise it must be there."""
    request: RequestRecord | None = None
    """Only with `insert`: the request_id that it was made under."""
    deleted: bool = False
    """Hide the job from `get` and `list` from now on; false leaves it as it is."""


@dataclass(frozen=True)
class DeletedJob:
    """A job that is hidden, but still in the store."""

    job_id: str
    state: State
    position: int
    """Global position of its newest event."""


@dataclass(frozen=True, kw_only=True)
class JobQuery:
    """Which page of jobs is wanted."""

    filter: str = ""
    """AIP-160, as `jobs.filtering` reads it; empty: all jobs."""
    order_by: str = ""
    """AIP-132, as `jobs.paging` reads it; empty: the newest first."""
    page_size: int = 0
    """Jobs at most; 0: 50. More than 1000 is taken as 1000."""
    page_token: str = ""
    """`next_page_token` of the page before; empty: the first page."""
    seen_by: str | None = None
    """Only the jobs of this user, and those that are shared; None: all users'."""


@dataclass(frozen=True)
class JobPage:
    """Jobs, without their evaluations, and the token of the next page; only an empty one ends.

    Attributes:
        token_behind: the token of a page that begins behind the job of an index: a page may be ended earlier.
    """

    jobs: tuple[TrainingJob, ...]
    next_page_token: str
    token_behind: Callable[[int], str]


class JobStore(Protocol):
    """Durable jobs and journals. One server writes; a write that has returned survives a crash."""

    async def check(self) -> None:
        """Find out that jobs can be read and written; writes nothing.

        Raises:
            StoreUnavailable: the database does not answer or cannot be written.
        """

    async def commit(self, change: Change) -> None:
        """Write a job and its events in one transaction.

        Raises:
            RequestAccepted: `insert`, and the user's request_id was accepted before; goes before the next.
            JobAlreadyExists: `insert`, and the id is taken.
            StoreUnavailable: the database does not answer or cannot write; nothing is written.
        """

    async def get(self, job_id: str, *, deleted: bool = False) -> TrainingJob | None:
        """The job, with its evaluation if it has succeeded: the newest one in its journal.

        None when there is no such job, or it is deleted and `deleted` is false.
        """

    async def request(self, owner: str, request_id: str) -> RequestRecord | None:
        """What a user's request_id was accepted for; None when it was not, or its job is purged."""

    async def list(self, query: JobQuery) -> JobPage:
        """A page of jobs.

        Raises:
            InvalidListRequest: filter, order or token cannot be understood.
        """

    def unfinished(self, dataset: str | None = None) -> AsyncIterator[TrainingJob]:
        """Every job that is in no final state, deleted ones too, in no particular order.

        Args:
            dataset: only those that use the data of this name; None: whatever they use.
        """

    async def events(self, job_id: str, *, after: int, limit: int) -> Sequence[Event]:
        """The journal of one job, deleted or not, from sequence `after + 1` on."""

    async def turns(self, job_id: str) -> Sequence[Event]:
        """What the journal of one job tells of its states and checkpoints, in order."""

    async def epochs_told(self, job_id: str) -> int:
        """The epoch that the journal of one job told of last; 0 when there is none."""

    async def feed(self, *, after: int, limit: int) -> Sequence[tuple[int, Event]]:
        """The journals of all jobs, deleted ones too, in the order written.

        Each event comes with its global position. They are `limit` at most, and fewer where they are large.
        """

    async def cursor(self, consumer: str) -> int:
        """The global position a consumer of the feed has reached; 0 at first."""

    async def move_cursor(self, consumer: str, position: int) -> None:
        """Remember a consumer's position."""

    async def deleted(self) -> Sequence[DeletedJob]:
        """Every deleted job that is not purged yet."""

    async def expiring(self, limit: int) -> Sequence[tuple[str, datetime]]:
        """Jobs that are not deleted yet and will be by themselves, with the time, the soonest first."""

    async def datasets(self) -> Set[str]:
        """Names of the data sets that jobs use, whatever their states; of deleted jobs too, until they are purged."""

    async def known(self, job_ids: Sequence[str]) -> Set[str]:
        """Which of these ids are jobs' that are not purged."""

    async def purge(self, job_ids: Sequence[str]) -> None:
        """Remove deleted jobs with their journals and request ids; their job ids can be used again.

        Others write meanwhile. If it is broken off, what is left of them stays deleted, and can be purged.
        """
