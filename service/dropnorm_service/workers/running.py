"""An attempt that runs: what its worker is told, and that it obeys."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime

from dropnorm.results import Payload, Phase, Progressed
from dropnorm_service.jobs.ports import Launch, Lost, Order, Outcome, Stopped
from dropnorm_service.workers.messages import Ordered, Start
from dropnorm_service.workers.process import Child
from dropnorm_service.workers.slots import Seat

# Before its first step a worker has nothing to lose, and may wait for a mirror or draw a huge layer.
_NOTHING_DONE: frozenset[Phase | None] = frozenset({None, "loading_data", "building"})
_PATIENCE_AT_THE_START = 1.0
# A job that is cancelled has its last checkpoint. The rest of a long step would be for nothing.
_PATIENCE_WITH_SILENCE = 10.0

log = logging.getLogger(__name__)


class Running:
    """An attempt: the worker is absent until it has been told what to do.

    A worker obeys between two steps. Who is told to stop where no step will ever come soon is ended by its server:
    before the first step after a second, since nothing is lost; afterwards only if the job is cancelled, and the
    worker has said nothing for ten seconds.

    Args:
        launch: the attempt.
        seats: where it runs.
    """

    def __init__(self, launch: Launch, seats: Sequence[Seat]) -> None:
        self.launch = launch
        self.seats = seats
        self.worker: Child | None = None
        self.stopped = asyncio.Event()
        """Set when it is told to stop before it has a worker."""
        self._orders: list[Order] = []
        self._phase: Phase | None = None
        self._ended_for: Order | None = None
        self._timer: asyncio.TimerHandle | None = None

    def order(self, order: Order) -> None:
        """Tell the worker what to do, at once or when it is there."""
        self._orders.append(order)
        if self.worker is not None:
            self.worker.send(Ordered(order=order))
        elif self._last_stop is not None:
            self.stopped.set()
        if self.worker is not None and order != "checkpoint":
            self._insist_after(_PATIENCE_AT_THE_START)

    def start(self, worker: Child, start: Start) -> None:
        """The worker is there, and hears what it was told before."""
        self.worker = worker
        worker.send(start)
        for order in self._orders:
            worker.send(Ordered(order=order))
        if self._last_stop is not None:
            self._insist_after(_PATIENCE_AT_THE_START)

    def without_worker(self) -> Stopped:
        """What became of an attempt that was told to stop before it had a worker."""
        assert self._last_stop is not None  # who asks has waited for it
        return Stopped(self._last_stop)

    def heard(self, item: tuple[datetime, Payload] | Outcome) -> tuple[datetime, Payload] | Outcome:
        """Take note of what the worker says; a worker that was ended because of an order has obeyed it."""
        if isinstance(item, Outcome):
            self.close()
            if isinstance(item, Lost) and self._ended_for is not None:
                return Stopped(self._ended_for)
        elif isinstance(item[1], Progressed):
            self._phase = item[1].progress.phase
        return item

    def close(self) -> None:
        """Insist on nothing any more."""
        if self._timer is not None:
            self._timer.cancel()

    @property
    def _last_stop(self) -> Order | None:
        return next((order for order in reversed(self._orders) if order != "checkpoint"), None)

    def _insist_after(self, seconds: float) -> None:
        self.close()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._insist)

    def _insist(self) -> None:
        """End a worker that was told to stop and has not, if that costs nothing that is wanted."""
        worker, order = self.worker, self._last_stop
        assert worker is not None  # there was somebody to insist with
        if self._phase not in _NOTHING_DONE:
            if order != "cancel":
                return
            silence = asyncio.get_running_loop().time() - worker.heard
            if silence < _PATIENCE_WITH_SILENCE:
                self._insist_after(_PATIENCE_WITH_SILENCE - silence)
                return
        about = {"job": self.launch.job_id, "attempt": self.launch.attempt}
        log.info("a worker did not %s within its time and is ended", order, extra=about)
        self._ended_for = order
        worker.kill()
