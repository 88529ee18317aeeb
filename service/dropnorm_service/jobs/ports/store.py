"""Where jobs and their journals are kept."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from dropnorm.results import Event, State, TrainingJob
from dropnorm_service.jobs.callers import LOCAL


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
