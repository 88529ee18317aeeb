"""What a training says and what it is told: events out, orders in."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import NamedTuple

from dropnorm.results import EpochMetrics, Payload, Phase, Progress, Progressed
from dropnorm_service.training.errors import TimeLimit

EventSink = Callable[[Payload], None]
"""Takes each event at the moment it happens."""


class Resumed(NamedTuple):
    """Where a training that was stopped goes on."""

    history: Sequence[EpochMetrics]
    """Its epochs before, from the first to the last."""
    step: int
    """Optimizer steps done."""


class Order(StrEnum):
    """What a training can be told between two steps."""

    GO_ON = "go_on"
    CHECKPOINT = "checkpoint"
    """Write a checkpoint, then go on."""
    PAUSE = "pause"
    """Write a checkpoint and end."""
    CANCEL = "cancel"
    """The same; the difference is the caller's."""


Orders = Callable[[], Order]
"""Asked between steps, so it must cost microseconds; gives each order once."""


class Listened:
    """Orders, and whether one to stop was among them, which they give but once.

    Args:
        orders: what it asks.
    """

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self.stop = False

    def __call__(self) -> Order:
        order = self._orders()
        if order is Order.PAUSE or order is Order.CANCEL:
            self.stop = True
        return order


class Interrupted(Exception):
    """A training ended because it was told to; its checkpoint is written.

    Attributes:
        order: `PAUSE` or `CANCEL`.
    """

    def __init__(self, order: Order) -> None:
        super().__init__(f"told to {order}")
        self.order = order


def ignore(said: object) -> None:
    """The sink of those who do not listen."""


def go_on() -> Order:
    """The orders of those who give none."""
    return Order.GO_ON


def uncounted() -> None:
    """What is called after steps that progress does not count, for those who do not count them either."""


def heeding(orders: Orders, began: float, time_limit: float | None) -> Callable[[], None]:
    """What to call between two pieces of work that leave nothing to write a checkpoint of.

    It raises Interrupted at an order to pause or cancel; one to write a checkpoint has nothing to act on. When the time
    is over it raises TimeLimit.

    Args:
        orders: what it asks.
        began: when the work did, by `time.perf_counter()`.
        time_limit: seconds that it may take; None: any time.
    """

    def heed() -> None:
        order = orders()
        if order in (Order.PAUSE, Order.CANCEL):
            raise Interrupted(order)
        if time_limit is not None and time.perf_counter() - began >= time_limit:
            raise TimeLimit(time_limit)

    return heed


class ProgressReport:
    """Progress when a phase is first met, at the first step, and besides at most once in an interval.

    Args:
        on_event: where it goes.
        epochs: epochs asked for.
        steps: optimizer steps in all.
        interval: seconds between two reports.
    """

    def __init__(
        self, on_event: EventSink, *, epochs: int, steps: int, interval: float = 1.0
    ) -> None:
        self._on_event = on_event
        self._epochs, self.steps = epochs, steps
        self._interval = interval
        self._phases: list[Phase] = []
        self.stepped = False
        self._next = 0.0

    def due(self, now: float) -> bool:
        """Whether the interval is over; costs next to nothing."""
        return now >= self._next

    def enter(self, phase: Phase, *, epoch: int, step: int) -> None:
        """Work on a phase from now on. Only the first time that it is met is told at once, for short
        epochs change their phase more often than anyone wants to hear."""
        if phase in self._phases:
            self._phases.remove(phase)
            self._phases.append(phase)
        else:
            self._phases.append(phase)
            self.tell(epoch=epoch, step=step)

    def first_step(self, *, epoch: int, step: int) -> None:
        """Tell of the first finished optimizer step of this attempt."""
        self.stepped = True
        self.tell(epoch=epoch, step=step)

    def tell(self, *, epoch: int, step: int) -> None:
        """Tell now: `epoch` epochs finished, `step` optimizer steps done."""
        self._next = time.perf_counter() + self._interval
        progress = Progress(
            phase=self._phases[-1], epoch=epoch, epochs=self._epochs, step=step, steps=self.steps
        )
        self._on_event(Progressed(progress=progress))
