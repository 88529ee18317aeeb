"""One attempt, from its launch to its outcome: what the worker says goes into the journal."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from datetime import datetime

from dropnorm.results import (
    CheckpointWritten,
    Evaluated,
    JobError,
    Payload,
    State,
    StateChanged,
    TrainingJob,
)
from dropnorm_service.durable import no_room
from dropnorm_service.jobs import states
from dropnorm_service.jobs.errors import StoreUnavailable
from dropnorm_service.jobs.journal import Decide, Entry, Journal
from dropnorm_service.jobs.live import LiveJob
from dropnorm_service.jobs.pace import ProgressPace
from dropnorm_service.jobs.ports import (
    Broken,
    Clock,
    Executor,
    Finished,
    Launch,
    Lost,
    Outcome,
)
from dropnorm_service.jobs.retries import Retries

_INBOX = 1024
_BATCH = 256
_STORE_PATIENCE = 1.0

_RESOURCE_EXHAUSTED = 8
_INTERNAL = 13
_UNAVAILABLE = 14

Item = tuple[datetime, Payload] | Outcome

log = logging.getLogger(__name__)


class Superseded(Exception):
    """The job is not this attempt's any more."""


class Attempts:
    """Runs attempts and journals them.

    Args:
        journal: where what they say goes.
        executor: what runs them.
        retries: counts those that were lost.
        clock: the time.
    """

    def __init__(
        self, journal: Journal, executor: Executor, retries: Retries, clock: Clock
    ) -> None:
        self._journal = journal
        self._executor = executor
        self._retries = retries
        self._clock = clock
        self.stopping = False

    async def run(self, live: LiveJob, launch: Launch) -> None:
        """Run an attempt of a queued job to its outcome, and move the job accordingly.

        The worker starts at once, while RUNNING is still being written: what it says waits for it.
        """
        inbox: asyncio.Queue[Item] = asyncio.Queue(_INBOX)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._record(live, launch, inbox))
                await self._listen(launch, inbox)
        except* Superseded:
            log.info("attempt %d of %s ends: the job moved on", launch.attempt, launch.job_id)
        except* Exception:
            log.exception("attempt %d of %s cannot be journaled", launch.attempt, launch.job_id)
            await self._give_up(live, launch)

    async def _give_up(self, live: LiveJob, launch: Launch) -> None:
        """End an attempt that the service itself cannot go on with: its job must not run for ever."""
        error = _internal("The service met an unexpected error over this attempt; see its log.")
        may_retry = self._retries.lost(launch.job_id, 0, error.reason)
        with contextlib.suppress(Superseded):  # it has not begun, or has ended
            await self._write(live, self._append(launch, [], Lost(error), may_retry))

    async def _listen(self, launch: Launch, inbox: asyncio.Queue[Item]) -> None:
        try:
            launch.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            log.error("no folder for attempt %d of %s: %s", launch.attempt, launch.job_id, error)
            await inbox.put(Lost(_no_folder(error)))
            return
        pace = ProgressPace()
        try:
            async with contextlib.aclosing(self._executor.run(launch)) as items:
                async for item in items:
                    if isinstance(item, Outcome):
                        await inbox.put(item)
                        return
                    if pace.lets_through(*item):
                        await inbox.put(item)
            log.error("attempt %d of %s ended without outcome", launch.attempt, launch.job_id)
        except Exception:
            log.exception("attempt %d of %s broke the executor", launch.attempt, launch.job_id)
        await inbox.put(Lost(_internal("The service could not run the worker; see its log.")))

    async def _record(self, live: LiveJob, launch: Launch, inbox: asyncio.Queue[Item]) -> None:
        await self._write(live, lambda job: self._begin(job, launch))
        evaluated = False
        checkpoint_step = 0
        outcome: Outcome | None = None
        while outcome is None:
            said, outcome = await _next_batch(inbox)
            for _, payload in said:
                evaluated |= isinstance(payload, Evaluated)
                if isinstance(payload, CheckpointWritten):
                    checkpoint_step = payload.step
            may_retry = True
            match outcome:
                case Finished() if not evaluated:
                    outcome = Broken(_internal("The worker ended without an evaluation."))
                case Lost(error):
                    may_retry = self._retries.lost(launch.job_id, checkpoint_step, error.reason)
                    why = {"reason": error.reason, "error": error.message}
                    log.warning("an attempt was lost", extra=why)
            await self._write(live, self._append(launch, said, outcome, may_retry))

    def _begin(self, job: TrainingJob, launch: Launch) -> Sequence[Entry]:
        if job.state is not State.QUEUED or job.attempt != launch.attempt - 1:
            raise Superseded
        return [Entry(self._clock(), StateChanged(state=State.RUNNING), launch.attempt)]

    def _append(
        self,
        launch: Launch,
        said: Sequence[tuple[datetime, Payload]],
        outcome: Outcome | None,
        may_retry: bool,
    ) -> Decide:
        def decide(job: TrainingJob) -> Sequence[Entry]:
            if not job.state.active or job.attempt != launch.attempt:
                raise Superseded
            entries = [Entry(time, payload, launch.attempt) for time, payload in said]
            if outcome is not None:
                move = states.after(job.state, outcome, stopping=self.stopping, may_retry=may_retry)
                entries.append(Entry(self._clock(), StateChanged(**move._asdict()), job.attempt))
            return entries

        return decide

    async def _write(self, live: LiveJob, decide: Decide) -> None:
        """Append to the journal; while the store is away the attempt goes on and this waits."""
        while True:
            try:
                await self._journal.change(live, decide)
            except StoreUnavailable as error:
                log.error("cannot write the journal of %s: %s", live.job.name, error)
                await asyncio.sleep(_STORE_PATIENCE)
            else:
                return


async def _next_batch(
    inbox: asyncio.Queue[Item],
) -> tuple[list[tuple[datetime, Payload]], Outcome | None]:
    """What has come since the last write, at least one item, so that a fast worker is one write."""
    said: list[tuple[datetime, Payload]] = []
    item = await inbox.get()
    while not isinstance(item, Outcome):
        said.append(item)
        if inbox.empty() or len(said) == _BATCH:
            return said, None
        item = inbox.get_nowait()
    return said, item


def _no_folder(error: OSError) -> JobError:
    """A job's folder could not be made. As of what its worker writes: a full disk is nobody's fault."""
    why = error.strerror or type(error).__name__
    if no_room(error):
        text = f"The disk of the data folder has no room for the job ({why}); free some, and it begins."
        return JobError(code=_RESOURCE_EXHAUSTED, reason="DISK_FULL", message=text)
    text = f"The service could not make the job's folder: {why}; look at the data folder's disk and rights."
    return JobError(code=_UNAVAILABLE, reason="IO_ERROR", message=text)


def _internal(message: str) -> JobError:
    return JobError(code=_INTERNAL, reason="INTERNAL", message=message)
