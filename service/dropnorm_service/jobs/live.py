"""Jobs in memory: rows that are read often, and the newest part of their journals."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator, Sequence

from dropnorm.results import Evaluation, Event, State, TrainingJob
from dropnorm_service.jobs.sizes import evaluation_bytes, event_bytes
from dropnorm_service.turns import Turns

_TAIL = 512
_TAIL_BYTES = 2**21


class LiveJob:
    """A job in memory.

    Args:
        job: its row.
        newest: the newest part of its journal.
        turns: in which those who wait for news are woken.

    Attributes:
        job: its row, as it is in the store, but perhaps without its evaluation: see `whole`.
        evaluation: the newest evaluation its journal got since somebody holds it.
        deleted: hidden from callers.
        lock: held while the job changes.
        holders: who needs it in memory: its attempt, its watchers, a change under way.
        watchers: how many follow its journal.
    """

    def __init__(
        self, job: TrainingJob, newest: Sequence[Event] = (), turns: Turns | None = None
    ) -> None:
        self.job = job
        self.evaluation: Evaluation | None = None
        self.deleted = False
        self.lock = asyncio.Lock()
        self.holders = 0
        self.watchers = 0
        self._tail = list(newest)
        self._tail_bytes = sum(map(event_bytes, newest))
        self._sized: tuple[Evaluation | None, int] = (None, 0)
        self._turns = turns or Turns()
        self._waiting: dict[asyncio.Future[None], None] = {}

    def advance(
        self, job: TrainingJob, events: Sequence[Event], evaluation: Evaluation | None
    ) -> None:
        """Take over what has been committed, and wake those who wait for it."""
        self.job = job
        self.evaluation = evaluation
        self._sized = (None, 0)
        self._tail += events
        self._tail_bytes += sum(map(event_bytes, events))
        if len(self._tail) > 2 * _TAIL or self._tail_bytes > 2 * _TAIL_BYTES:
            self._shorten()
        self.wake()

    def recent(self, after: int, limit: int) -> Sequence[Event] | None:
        """Events from sequence `after + 1` on; None when memory does not reach back so far."""
        if after >= self.job.last_sequence:
            return ()
        if not self._tail or after + 1 < self._tail[0].sequence:
            return None
        start = after + 1 - self._tail[0].sequence
        return self._tail[start : start + limit]

    async def news(self) -> None:
        """Wait until there is something new; what came before the call does not count."""
        waiting = asyncio.get_running_loop().create_future()
        self._waiting[waiting] = None
        try:
            await waiting
        finally:  # who gives up, at a job of which there is never news, leaves nothing
            self._waiting.pop(waiting, None)

    def wake(self) -> None:
        """Wake everyone who waits for news."""
        waiting, self._waiting = self._waiting, {}
        self._turns.give(waiting)

    def trim(self) -> None:
        """Forget the newest part of the journal; nobody reads or continues it."""
        self._tail.clear()
        self._tail_bytes = 0
        self.evaluation = None

    @property
    def whole(self) -> bool:
        """Whether `job` has its evaluation, if it has one at all: every job that succeeded has."""
        return self.job.state is not State.SUCCEEDED or self.job.evaluation is not None

    @property
    def evaluation_bytes(self) -> int:
        """About what the row's evaluation takes in memory."""
        evaluation = self.job.evaluation
        if evaluation is not self._sized[0]:
            self._sized = (evaluation, evaluation_bytes(evaluation) if evaluation else 0)
        return self._sized[1]

    def put_evaluation(self, evaluation: Evaluation | None) -> None:
        """Give the row its evaluation back, or (None) leave that to the store."""
        self.job = self.job.model_copy(update={"evaluation": evaluation})
        self._sized = (None, 0)

    def _shorten(self) -> None:
        """Keep the newest events that are few and small enough together."""
        kept = size = 0
        for event in reversed(self._tail[-_TAIL:]):
            more = size + event_bytes(event)
            if more > _TAIL_BYTES:
                break
            kept, size = kept + 1, more
        del self._tail[: len(self._tail) - kept]
        self._tail_bytes = size


class LiveJobs:
    """The jobs in memory: those that are held, and the most recently used others.

    Args:
        idle_capacity: jobs that nobody holds to keep.
        idle_bytes: memory for their evaluations; beyond it the longest unused are without.
    """

    def __init__(self, idle_capacity: int, idle_bytes: int) -> None:
        self._capacity = idle_capacity
        self._bytes = idle_bytes
        self._turns = Turns()
        self._taken = 0
        self._jobs: dict[str, LiveJob] = {}
        self._idle: OrderedDict[str, LiveJob] = OrderedDict()

    def __iter__(self) -> Iterator[LiveJob]:
        return iter(self._jobs.values())

    def get(self, job_id: str) -> LiveJob | None:
        """The job, if it is in memory."""
        live = self._jobs.get(job_id)
        if job_id in self._idle:
            self._idle.move_to_end(job_id)
        return live

    def add(self, job: TrainingJob, newest: Sequence[Event] = ()) -> LiveJob:
        """Take a row and its newest events into memory, unless the job is there already."""
        live = self._jobs.get(job.id)
        if live is None:
            live = self._jobs[job.id] = LiveJob(job, newest, self._turns)
            self._rest(live)
        return live

    def complete(self, live: LiveJob, evaluation: Evaluation | None) -> None:
        """Keep the evaluation of a job that is without, as long as there is room."""
        self._put_evaluation(live, evaluation)
        self._make_room()

    def hold(self, live: LiveJob) -> None:
        """Keep a job in memory until it is released as often as it was held."""
        live.holders += 1
        self._wake_up(live.job.id)

    def release(self, live: LiveJob) -> None:
        """Let go of a job that was held."""
        live.holders -= 1
        if live.holders == 0 and self._jobs.get(live.job.id) is live:
            live.trim()
            self._rest(live)

    def discard(self, job_id: str) -> None:
        """Forget a job that is no more; those who hold it keep their own view of it."""
        self._jobs.pop(job_id, None)
        self._wake_up(job_id)

    def _rest(self, live: LiveJob) -> None:
        self._idle[live.job.id] = live
        self._taken += live.evaluation_bytes
        while len(self._idle) > self._capacity:
            oldest = next(iter(self._idle))
            self._wake_up(oldest)
            del self._jobs[oldest]
        self._make_room()

    def _wake_up(self, job_id: str) -> None:
        """Count a job no more among those that nobody holds, if it is one."""
        live = self._idle.pop(job_id, None)
        if live is not None:
            self._taken -= live.evaluation_bytes

    def _put_evaluation(self, live: LiveJob, evaluation: Evaluation | None) -> None:
        before = live.evaluation_bytes
        live.put_evaluation(evaluation)
        if live.job.id in self._idle:
            self._taken += live.evaluation_bytes - before

    def _make_room(self) -> None:
        if self._taken <= self._bytes:
            return
        for live in self._idle.values():
            if live.evaluation_bytes:
                self._put_evaluation(live, None)
                if self._taken <= self._bytes:
                    return
