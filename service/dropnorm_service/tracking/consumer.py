"""One consumer of the journal's feed: a durable cursor, and a mirror process that is fed from it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence

from dropnorm.results import Event, Tracked
from dropnorm_service.jobs.errors import StoreUnavailable
from dropnorm_service.tracking.backlog import Backlog, Behind
from dropnorm_service.tracking.config import TrackingConfig
from dropnorm_service.tracking.errors import MlflowUnavailable
from dropnorm_service.tracking.journal import Journal
from dropnorm_service.tracking.messages import Done, Rewriting, Role, RunMade, Setup
from dropnorm_service.tracking.process import CLOSING_TIME, MirrorProcess, ProcessEnded

_FEED_LIMIT = 500
# Events of a busy service come in droves, and a batch of them costs little more than one. A training that is under
# way feels each delivery, since it has all cores in use; its curves may lag, the beginning and end of jobs may not.
_LINGER = 0.1
_CURVES_LINGER = 2.0
_UNSAVED_LIMIT = 1000
_DEADLY = 3  # deaths of the process over one and the same event before that event is left out
_SHORTEST_RETRY = 0.5
_MOST_DOUBLINGS = 30
_LONGEST_RESTART = (
    30.0  # seconds between two starts of a process that dies; each takes seconds of a core
)

log = logging.getLogger(__name__)


class Consumer:
    """Delivers the feed's events to a mirror process, in order and at least once.

    The cursor moves only behind what MLflow holds, so neither a crash nor an outage loses anything, and what is sent
    twice is written once. A job of which MLflow does not take something while it takes others waits by itself. A
    consumer with an `upstream` stays behind it.
    """

    def __init__(
        self,
        role: Role,
        config: TrackingConfig,
        journal: Journal,
        *,
        wants: Callable[[Event], bool],
        batch_size: int,
        longest_retry: float,
        upstream: Consumer | None = None,
        idle_limit: float | None = None,
    ) -> None:
        """A consumer, not yet running.

        Args:
            role: what its process writes.
            config: the MLflow store.
            journal: the service around it.
            wants: which events its process is sent; the others are passed over.
            batch_size: events sent at once.
            longest_retry: longest pause in seconds until MLflow is tried again when it is away.
            upstream: the consumer that this one must not overtake.
            idle_limit: seconds without work after which its process is ended until there is some again; None: never,
                and it is started at once.
        """
        self.name = role.cursor
        self.closing_time = CLOSING_TIME
        """Seconds that its process has, at the end, to finish what it does."""
        self.failed: Counter[str] = Counter()
        """Tries that failed: `unavailable` MLflow, its process `died`, another `error`."""
        self._journal = journal
        self._wants = wants
        self._batch_size = batch_size
        self._longest_retry = longest_retry
        self._upstream = upstream
        self._others: Backlog | None = upstream._backlog if upstream is not None else None
        self._idle_limit = idle_limit
        self._process = MirrorProcess(Setup.of(role, config), self._record)
        self._wake = asyncio.Event()
        self._urgent = asyncio.Event()
        self._idle = asyncio.Event()
        self._hindered = asyncio.Event()
        self._followers: list[Consumer] = []
        self._backlog: Backlog = Backlog(time.monotonic)
        self._begun = False
        self._reached = 0
        self._saved = 0
        self._failures = 0
        self._deaths = 0
        if upstream is not None:
            upstream._followers.append(self)

    @property
    def position(self) -> int:
        """Global position up to which everything is mirrored."""
        waiting = self._backlog.position
        return self._reached if waiting is None else min(waiting, self._reached)

    def notify(self, *, urgent: bool = True) -> None:
        """Say that the journal has grown, or that the upstream has come further.

        Args:
            urgent: somebody waits for it, or may; otherwise it is taken along with what comes within seconds.
        """
        self._idle.clear()
        self._wake.set()
        if urgent:
            self._urgent.set()

    async def caught_up(self) -> None:
        """Wait until everything is mirrored that was in the journal at the last notification."""
        await self._idle.wait()

    @property
    def hindered(self) -> bool:
        """Whether its last try failed, so that there is no telling when it will go on."""
        return self._hindered.is_set()

    async def settled(self) -> None:
        """Wait until it has caught up, or is hindered."""
        waits = [asyncio.create_task(event.wait()) for event in (self._idle, self._hindered)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()

    async def run(self) -> None:
        """Deliver events until cancelled."""
        try:
            while True:
                self._wake.clear()
                self._urgent.clear()
                pause = await self._step()
                if pause is not None:
                    await self._pause(pause)
                elif not self._wake.is_set():
                    (self._hindered if self._backlog else self._idle).set()
                    await self._wait_for_work()
        finally:
            await self._process.close(self.closing_time)

    async def _step(self) -> float | None:
        """Try to go on; seconds to wait before the next try, None when there is nothing to do now."""
        try:
            await self._begin()
            if self._idle_limit is None:
                await self._process.prepare()
            caught_up = await self._catch_up()
            entries = await self._next()
            wanted = [entry for entry in entries if self._wants(entry[1])]
            if entries:
                await self._deliver(wanted)
                await self._advance(entries[-1][0], durable=False)
        except MlflowUnavailable as error:
            level = logging.DEBUG if self._failures else logging.WARNING  # once per outage
            log.log(level, "%s: MLflow is unavailable, will try again: %s", self.name, error)
            await self._back_off(self._longest_retry, "unavailable")
        except StoreUnavailable as error:
            level = logging.DEBUG if self._failures else logging.WARNING
            log.log(level, "%s: the journal cannot be read, will try again: %s", self.name, error)
            await self._back_off(self._longest_retry, "store")
        except ProcessEnded as error:
            log.error("%s: the process that writes to MLflow died: %s", self.name, error)
            await self._back_off(_LONGEST_RESTART, "died")
        except Exception:
            # Whatever it is, jobs must not notice, and the cursor has not moved.
            log.exception("%s: mirroring failed, will try again", self.name)
            await self._back_off(_LONGEST_RESTART, "error")
        else:
            self._hindered.clear()
            if not entries:
                return 0.0 if caught_up else None
            return _CURVES_LINGER if wanted and len(entries) < _FEED_LIMIT else _LINGER
        return 0.0

    async def _begin(self) -> None:
        """Find out, once, where to begin."""
        if not self._begun:
            self._reached = self._saved = await self._journal.store.cursor(self.name)
            self._begun = True

    async def _next(self) -> Sequence[tuple[int, Event]]:
        entries = await self._journal.store.feed(after=self._reached, limit=_FEED_LIMIT)
        if self._upstream is None:
            return entries
        bound = self._upstream._reached
        return [entry for entry in entries if entry[0] <= bound]

    async def _deliver(self, entries: Sequence[tuple[int, Event]]) -> None:
        while entries := self._without_those_who_wait(entries):
            # After a death one event at a time, to find the one that kills.
            size = 1 if self._deaths else self._batch_size
            batch, entries = entries[:size], entries[size:]
            # The run is told of what is left out, unless the process dies of that too.
            if self._deaths <= _DEADLY:
                await self._write_news(batch, fatal=self._deaths == _DEADLY)
            if self._deaths >= _DEADLY:
                event = batch[0][1]
                log.error(
                    "%s: event %d of %s is left out, the process dies of it",
                    self.name,
                    event.sequence,
                    event.training_job,
                )
            if self._failures:
                log.info("%s: goes on", self.name)
            self._deaths = self._failures = 0
            await self._advance(batch[-1][0], durable=True)

    def _without_those_who_wait(
        self, entries: Sequence[tuple[int, Event]]
    ) -> Sequence[tuple[int, Event]]:
        """The events but those of jobs that MLflow is behind with, or the upstream: they are read again later."""
        news = []
        for position, event in entries:
            name = event.training_job
            if self._others is not None and name in self._others:
                self._let_wait(position, event)
            if name in self._backlog:
                self._backlog.pass_over(name, event.sequence)
            else:
                news.append((position, event))
        return news

    def _let_wait(self, position: int, event: Event) -> None:
        if event.training_job not in self._backlog:
            behind = Behind(position - 1, done=event.sequence - 1, passed=event.sequence)
            self._backlog.add(event.training_job, behind)

    async def _write_news(self, entries: Sequence[tuple[int, Event]], *, fatal: bool) -> None:
        await self._process.prepare()  # should it die of that, no event is to blame
        try:
            done = await self._write([event for _, event in entries], fatal=fatal)
        except ProcessEnded:
            self._deaths += 1
            raise
        behind = {*done.late, *done.gone}
        for position, event in entries:
            if event.training_job in behind:
                self._let_wait(position, event)
                self._backlog.pass_over(event.training_job, event.sequence)
        self._note(done)

    def _note(self, done: Done) -> None:
        for name, why in done.late.items():
            self.failed["unavailable"] += 1
            level = logging.DEBUG if self._backlog.failures else logging.WARNING
            log.log(level, "%s: %s waits, the others go on: %s", self.name, name, why)
            self._put_off(name, self._longest_retry)
        for name in done.gone:
            if self._backlog[name].rewriting:  # it has gone again
                self._put_off(name, self._longest_retry)
            self._backlog[name].begin_anew()

    def _put_off(self, name: str, longest: float) -> None:
        self._backlog.failed(name, retry_delay(self._backlog.failures, longest))

    async def _catch_up(self) -> bool:
        """Try again the job of the backlog whose turn it is; whether MLflow has all of it now."""
        chosen = self._backlog.first(self._others)
        if chosen is None or self._backlog.pause(self._others):
            return False
        name, behind = chosen
        await self._process.prepare()
        try:
            caught_up = await self._write_rest(name, behind)
        except (MlflowUnavailable, StoreUnavailable):  # whatever is tried meets that
            raise
        except Exception as error:
            behind.deaths += isinstance(error, ProcessEnded)
            self._put_off(name, _LONGEST_RESTART)
            raise
        if caught_up:
            log.info("%s: %s has caught up", self.name, name)
            self._backlog.succeeded(name)
            await self._advance(self._reached, durable=True)
        return caught_up

    async def _write_rest(self, name: str, behind: Behind) -> bool:
        """Write what a job's journal has more than MLflow; whether it has all that the feed has brought."""
        while behind.done < behind.passed:
            size = 1 if behind.deaths else self._batch_size
            events = await self._journal.store.events(
                name.rpartition("/")[2], after=behind.done, limit=size
            )
            events = [event for event in events if event.sequence <= behind.passed]
            if not events:  # purged
                break
            wanted = [event for event in events if self._wants(event)]
            if wanted and not await self._write_part(name, behind, wanted):
                return False
            behind.done = events[-1].sequence
        return True

    async def _write_part(self, name: str, behind: Behind, events: Sequence[Event]) -> bool:
        """Write some events of a job that waits; whether MLflow has taken them, or they are given up."""
        if behind.deaths >= _DEADLY:
            log.error(
                "%s: event %d of %s is left out, the process dies of it",
                self.name,
                events[0].sequence,
                name,
            )
        if behind.deaths <= _DEADLY:
            last = events[-1].sequence == behind.passed
            rewriting = Rewriting(first=not behind.begun, last=last) if behind.rewriting else None
            fatal = behind.deaths == _DEADLY
            done = await self._write(events, fatal=fatal, rewriting=rewriting)
            self._note(done)
            if name in done.late or name in done.gone:
                return False
        behind.begun, behind.deaths = True, 0
        return True

    async def _write(
        self, events: Sequence[Event], *, fatal: bool, rewriting: Rewriting | None = None
    ) -> Done:
        batch = await self._journal.batch(events, fatal=fatal, rewriting=rewriting)
        with self._journal.delivering(self.name, events):
            return await self._process.deliver(batch)

    async def _record(self, run: RunMade) -> None:
        await self._journal.record_tracking(
            run.job_id,
            Tracked(mlflow_experiment_id=run.experiment_id, mlflow_run_id=run.run_id),
        )

    async def _advance(self, reached: int, *, durable: bool) -> None:
        self._reached = reached
        position = self.position
        # Events that are passed over cost no write: after a crash they are passed over again.
        if position - self._saved >= (1 if durable else _UNSAVED_LIMIT):
            await self._journal.store.move_cursor(self.name, position)
            self._saved = position
        for follower in self._followers:
            follower.notify()

    async def _pause(self, seconds: float) -> None:
        """Wait, though for what is urgent not longer than events need to gather."""
        await asyncio.sleep(min(_LINGER, seconds))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds - _LINGER)):
                await self._urgent.wait()

    async def _wait_for_work(self) -> None:
        limit = self._backlog.pause(self._others)
        if limit is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limit):
                    await self._wake.wait()
            return
        try:
            async with asyncio.timeout(self._idle_limit if self._process.running else None):
                await self._wake.wait()
        except TimeoutError:
            await self._process.close()
            await self._wake.wait()

    async def _back_off(self, longest: float, reason: str) -> None:
        self.failed[reason] += 1
        delay = retry_delay(self._failures, longest)
        self._failures += 1
        self._hindered.set()
        await asyncio.sleep(delay)


def retry_delay(failures: int, longest: float) -> float:
    """Seconds to wait after so many failures in a row, and one: doubled each time, up to the longest."""
    # In a long outage there are so many that their power of two is no float any more.
    return min(_SHORTEST_RETRY * 2.0 ** min(failures, _MOST_DOUBLINGS), longest)
