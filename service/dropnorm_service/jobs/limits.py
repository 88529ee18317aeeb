"""How much each user may have at once, so that nobody takes it all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dropnorm_service.jobs.callers import Caller
from dropnorm_service.jobs.errors import LimitReached

_QUEUE_PAUSE = 10.0  # a small job takes about as long
_STREAM_PAUSE = 5.0
_CALL_PAUSE = 1.0


@dataclass(frozen=True, kw_only=True)
class JobLimits:
    """Limits of what users may ask of jobs.

    Attributes:
        queued: jobs of one user that wait in the queue.
        all_queued: jobs of all users together that wait there.
        watches: journals that one user follows.
        all_watches: journals that all users together follow.
        heavy_calls: plans, predictions, exports and downloads of one user that are under way.
        creates: requests for jobs of one user that are being checked.
        seconds: time that a job may train, all attempts together; None: any.
    """

    queued: int = 10_000
    all_queued: int = 100_000
    watches: int = 1_000
    all_watches: int = 5_000
    heavy_calls: int = 16
    creates: int = 64
    seconds: float | None = None


DEFAULT_LIMITS = JobLimits()


class Places:
    """Places that are taken for a while, so many for each who takes them.

    Args:
        setting: the setting that says how many.
        limit: how many there are for each.
        message: for who finds none free; may say `{limit}`.
        retry_after: seconds after which one may be free.
    """

    def __init__(self, setting: str, limit: int, message: str, *, retry_after: float) -> None:
        self._setting = setting
        self._limit = limit
        self._message = message.format(limit=f"{limit:,}")
        self._retry_after = retry_after
        self._taken: Counter[str] = Counter()

    @contextmanager
    def taken(self, subject: str, *, besides: int = 0) -> Iterator[None]:
        """Take a place within the block.

        Args:
            subject: who takes it.
            besides: places that he has taken by other ways.

        Raises:
            LimitReached: he has as many as there are.
        """
        if self._taken[subject] + besides >= self._limit:
            raise LimitReached(
                self._message,
                setting=self._setting,
                limit=self._limit,
                subject=subject,
                retry_after=self._retry_after,
            )
        self._taken[subject] += 1
        try:
            yield
        finally:
            self._taken[subject] -= 1
            self._taken += Counter()  # drops who has none


def subject_of(caller: Caller) -> str:
    """How a limit names a user."""
    return f"user:{caller.user}"


class JobPlaces:
    """The places in the queue, at the journals, and of calls that keep others waiting.

    Args:
        limits: how many there are.
    """

    def __init__(self, limits: JobLimits) -> None:
        self._queued = Places(
            "max_queued_jobs_per_user",
            limits.queued,
            "{limit} of your jobs wait in the queue, as many as a user's may; wait until some have begun, "
            "or cancel some.",
            retry_after=_QUEUE_PAUSE,
        )
        self._all_queued = Places(
            "max_queued_jobs",
            limits.all_queued,
            "{limit} jobs wait in the queue, as many as the service keeps there; wait until some have begun.",
            retry_after=_QUEUE_PAUSE,
        )
        self._watches = Places(
            "max_watches_per_user",
            limits.watches,
            "You follow {limit} journals, as many as a user may; end some of those streams first.",
            retry_after=_STREAM_PAUSE,
        )
        self._all_watches = Places(
            "max_watches",
            limits.all_watches,
            "{limit} journals are being followed, as many as the service tells at once; try again in a moment.",
            retry_after=_STREAM_PAUSE,
        )
        self._heavy_calls = Places(
            "max_heavy_calls_per_user",
            limits.heavy_calls,
            "{limit} of your plans, predictions, exports and downloads are under way, as many as a user's may be; "
            "wait until one has ended.",
            retry_after=_CALL_PAUSE,
        )
        self._creates = Places(
            "max_creates_per_user",
            limits.creates,
            "{limit} of your requests for jobs are being checked, as many as a user's may be; try again in a moment.",
            retry_after=_CALL_PAUSE,
        )

    @contextmanager
    def queueing(self, caller: Caller, waiting: int, all_waiting: int) -> Iterator[None]:
        """Bring a job into the queue within the block.

        Args:
            caller: whose it is.
            waiting: jobs of his that are in the queue.
            all_waiting: jobs of all users that are there.

        Raises:
            LimitReached: his, or all together, are as many as may be.
        """
        with (
            self._queued.taken(subject_of(caller), besides=waiting),
            self._all_queued.taken("service", besides=all_waiting),
        ):
            yield

    @contextmanager
    def watching(self, caller: Caller) -> Iterator[None]:
        """Follow a journal within the block.

        Raises:
            LimitReached: he follows as many as he may, or all together do.
        """
        with self._watches.taken(subject_of(caller)), self._all_watches.taken("service"):
            yield

    @contextmanager
    def creating(self, caller: Caller) -> Iterator[None]:
        """Have a request for a job checked within the block.

        It waits for the planner, but only for others of the caller's own and one of each other user's. So there are
        more places than for `working`: who submits from many places at once waits, and is not refused.

        Raises:
            LimitReached: as many of his are being checked as may be.
        """
        with self._creates.taken(subject_of(caller)):
            yield

    @contextmanager
    def working(self, caller: Caller) -> Iterator[None]:
        """Plan, predict, export or download within the block.

        Such a call waits in a line, and holds its inputs or an open file meanwhile.

        Raises:
            LimitReached: as many of his are under way as may be.
        """
        with self._heavy_calls.taken(subject_of(caller)):
            yield
