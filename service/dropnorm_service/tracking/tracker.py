"""The mirror of the journal in MLflow, as the rest of the service sees it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from dropnorm.results import Event, StateChanged, Tracked
from dropnorm_service.jobs.ports import JobStore
from dropnorm_service.tracking.config import TrackingConfig
from dropnorm_service.tracking.consumer import Consumer
from dropnorm_service.tracking.journal import Delivering, Journal, untraced
from dropnorm_service.tracking.messages import Role
from dropnorm_service.tracking.process import CLOSING_TIME

_RUN_EVENTS = frozenset({"state", "dataset", "epoch", "warning"})
_RUNS_PER_BATCH = 200
_RUNS_RETRY = 5.0  # an attempt costs next to nothing, and people wait for their runs
_ARTIFACT_RETRY = 30.0  # each attempt draws and exports again
_ARTIFACT_IDLE_LIMIT = 120.0


class Tracker:
    """Keeps MLflow in step with the journal, behind it and without anybody waiting for it.

    Two processes write, so that exporting a model delays no other job's metrics: one everything that goes to the
    tracking store, one the files. The second starts when a first job ends, and ends when it is long without work,
    since with torch loaded it takes a few hundred megabytes.
    """

    def __init__(
        self,
        config: TrackingConfig,
        *,
        store: JobStore,
        folder_of: Callable[[str], Path],
        record_tracking: Callable[[str, Tracked], Awaitable[None]],
        delivering: Delivering = untraced,
    ) -> None:
        """A tracker, not yet started.

        Args:
            config: the MLflow store.
            store: the journal and its cursors.
            folder_of: a job's own folder, by its id.
            record_tracking: puts a run's ids on a job and into its journal, durably; called again with the same ids
                after a crash, and without effect for a job that is gone.
            delivering: entered while events are written.
        """
        journal = Journal(
            store=store,
            folder_of=folder_of,
            record_tracking=record_tracking,
            delivering=delivering,
        )
        self._runs = Consumer(
            Role.RUNS,
            config,
            journal,
            wants=_concerns_run,
            batch_size=_RUNS_PER_BATCH,
            longest_retry=_RUNS_RETRY,
        )
        self._artifacts = Consumer(
            Role.ARTIFACTS,
            config,
            journal,
            wants=_ends_job,
            batch_size=1,
            longest_retry=_ARTIFACT_RETRY,
            upstream=self._runs,
            idle_limit=_ARTIFACT_IDLE_LIMIT,
        )
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def position(self) -> int:
        """Global position up to which MLflow has everything; deleted jobs may be purged up to it."""
        return min(self._runs.position, self._artifacts.position)

    @property
    def consumers(self) -> Sequence[Consumer]:
        """Those that write, each with its position and failures."""
        return (self._runs, self._artifacts)

    def start(self) -> None:
        """Start to follow the journal from where the cursors stand."""
        self._tasks = [
            asyncio.create_task(self._runs.run(), name="mlflow"),
            asyncio.create_task(self._artifacts.run(), name="mlflow-artifacts"),
        ]

    def notify(self, events: Sequence[Event]) -> None:
        """Say that the journal has grown by these events."""
        self._runs.notify(urgent=any(isinstance(each.payload, StateChanged) for each in events))

    async def caught_up(self) -> None:
        """Wait until MLflow has everything that is in the journal now."""
        self._runs.notify()
        await self._runs.caught_up()
        self._artifacts.notify()
        await self._artifacts.caught_up()

    async def stop(self, grace: float = CLOSING_TIME) -> None:
        """Stop; what is not yet mirrored is mirrored after the next start.

        Args:
            grace: seconds it may take at most: MLflow shall have everything, unless it cannot be reached,
                and the processes finish what they do. What is not done by then is broken off.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline - min(CLOSING_TIME, grace / 2)):
                for consumer in self.consumers:
                    consumer.notify()
                    await consumer.settled()
        for consumer in self.consumers:
            left = max(0.0, deadline - loop.time())
            consumer.closing_time = 0.0 if consumer.hindered else left
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _concerns_run(event: Event) -> bool:
    # Attempt 0 is the wait in the queue: a job that never starts leaves no run.
    return event.attempt > 0 and event.payload.kind in _RUN_EVENTS


def _ends_job(event: Event) -> bool:
    payload = event.payload
    return event.attempt > 0 and isinstance(payload, StateChanged) and payload.state.terminal
