"""What the domain asks of the outside world. Adapters live in `store` and `workers`; `app` joins them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

from dropnorm.results import Event, JobError, Payload, Plan, Slot, TrainingJob
from dropnorm.spec import TrainingSpec

Order = Literal["checkpoint", "pause", "cancel"]
"""What a worker can be told between two steps."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One attempt to be run."""

    job_id: str
    attempt: int
    spec: TrainingSpec
    folder: Path
    """The job's own folder: its checkpoints and, in the end, its model."""


@dataclass(frozen=True)
class Finished:
    """The worker did all it was asked; the Evaluated payload came before this."""


@dataclass(frozen=True)
class Stopped:
    """The worker obeyed `pause` or `cancel`, or the service is going down; its checkpoint is written."""

    order: Order


@dataclass(frozen=True)
class Broken:
    """The job's own fault: it would fail the same way again."""

    error: JobError


@dataclass(frozen=True)
class Lost:
    """The world's fault: the worker was killed, hung, or its host went away. Another attempt may succeed."""

    error: JobError


Outcome = Finished | Stopped | Broken | Lost


class Executor(Protocol):
    """Runs attempts in slots."""

    def slots(self) -> Sequence[Slot]:
        """Every slot and what it runs now."""

    def fits(self, spec: TrainingSpec) -> bool:
        """Whether a slot is free now that the spec can run in."""

    def obstacle(self, spec: TrainingSpec) -> str | None:
        """Why the spec can never run here (more GPUs than there are), a sentence; None when it can."""

    def run(self, launch: Launch) -> AsyncIterator[tuple[datetime, Payload] | Outcome]:
        """Run one attempt: its payloads with the time each happened at, then exactly one Outcome, the last item.

        Never raises for what a worker does. A caller that stops iterating ends the attempt.
        """

    def order(self, job_id: str, order: Order) -> None:
        """Tell the worker of a running job what to do; without effect when the job has none."""


class Planner(Protocol):
    """Answers what a spec comes to."""

    async def plan(self, spec: TrainingSpec) -> Plan:
        """The plan of a spec.

        Raises:
            InvalidSpecError: the spec does not fit together or does not fit its data; every field is named.
            PlannerUnavailable: no answer within the limit.
        """


@dataclass(frozen=True, kw_only=True)
class RequestRecord:
    """An accepted request_id, and what it was accepted for."""

    request_id: str
    digest: str
    """SHA-256 of the request's content: the same id with other content is refused."""
    job_id: str


@dataclass(frozen=True, kw_only=True)
class Change:
    """What one transaction writes: a job's new row and the events that led to it."""

    job: TrainingJob
    events: tuple[Event, ...] = ()
    insert: bool = False
    request: RequestRecord | None = None
    deleted: bool = False


@dataclass(frozen=True, kw_only=True)
class JobQuery:
    """A page of jobs. `filter` is AIP-160, `order_by` is AIP-132; both are parsed by `jobs.filtering`."""

    filter: str = ""
    order_by: str = ""
    page_size: int = 50
    page_token: str = ""


@dataclass(frozen=True)
class JobPage:
    """Jobs, without their evaluations, and the token of the next page; an empty token is the only end."""

    jobs: tuple[TrainingJob, ...] = field(default=())
    next_page_token: str = ""


class JobStore(Protocol):
    """Durable jobs and journals. One server writes; every write that has returned survives a crash."""

    async def commit(self, change: Change) -> None:
        """Write a job and its events in one transaction.

        Raises:
            JobAlreadyExists: `insert`, and the id is taken.
        """

    async def get(self, job_id: str) -> TrainingJob | None:
        """The job, with its evaluation; None when there is none or it is deleted."""

    async def list(self, query: JobQuery) -> JobPage:
        """A page of jobs.

        Raises:
            InvalidListRequest: filter, order or token cannot be understood.
        """

    async def unfinished(self) -> Sequence[TrainingJob]:
        """Every job that is in no final state, in the order of the queue."""

    async def events(self, job_id: str, *, after: int, limit: int) -> Sequence[Event]:
        """The journal of one job from sequence `after + 1` on."""

    async def feed(self, *, after: int, limit: int) -> Sequence[tuple[int, Event]]:
        """The journals of all jobs, deleted ones too, in the order written; each event with its global position."""

    async def request(self, request_id: str) -> RequestRecord | None:
        """What a request_id was accepted for."""

    async def cursor(self, consumer: str) -> int:
        """The global position a consumer of the feed has reached; 0 at first."""

    async def move_cursor(self, consumer: str, position: int) -> None:
        """Remember a consumer's position."""

    async def purge_deleted(self, *, before: int) -> Sequence[str]:
        """Remove deleted jobs whose whole journal lies at or below a position; their ids."""
