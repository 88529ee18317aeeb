"""Trainings that are stopped at places of one's choice, and what must be the same whether they were or not."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from pydantic import BaseModel
from torch import Tensor

from dropnorm import spec as dn
from dropnorm.results import Phase
from dropnorm_service.training import Checkpoints, FitResult, Interrupted, Order, SplitData, fit
from dropnorm_service.training.reporting import EventSink, ProgressReport, ignore
from dropnorm_service.training.writer import THREAD

TIMES = {
    "seconds",
    "evaluation_seconds",
    "samples_per_second",
    "training_seconds",
    "seconds_to_best",
    "peak_memory_bytes",
}
"""Fields of an evaluation that tell how long it took and what it used, and so of each attempt."""


def timeless(value: Any) -> Any:
    """Plain data without the fields that are times."""
    if isinstance(value, BaseModel):
        return timeless(value.model_dump())
    if isinstance(value, dict):
        return {key: timeless(each) for key, each in value.items() if key not in TIMES}
    return [timeless(each) for each in value] if isinstance(value, list | tuple) else value


def outcome(result: FitResult) -> dict[str, Any]:
    """All of a result but its times, weights and pictures byte by byte; numbers by all their digits."""
    weights = {name: _bytes(each) for name, each in result.model.state_dict().items()}
    pictures = {name: _bytes(each) for name, each in result.pictures.items()}
    return {"evaluation": repr(timeless(result.evaluation)), "weights": weights, **pictures}


def _bytes(tensor: Tensor) -> bytes:
    return tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


class Place(NamedTuple):
    """Where in a training orders are asked for.

    Attributes:
        phase: what is worked on.
        epoch: epochs done.
        number: the optimizer step behind which it is in training, elsewhere how many times the phase has asked.
    """

    phase: Phase
    epoch: int
    number: int


class Asked:
    """Orders: go on until a place is reached, and what places there were.

    Args:
        stop: where the training is told to stop; None: nowhere.
        order: what it is told there.
    """

    def __init__(self, stop: Place | None = None, order: Order = Order.PAUSE) -> None:
        self.places: list[Place] = []
        self._stop, self._order = stop, order
        self._phase: Phase = "loading_data"
        self._epoch = self._number = 0

    def enter(self, phase: Phase, epoch: int, step: int) -> None:
        """A phase begins."""
        self._phase, self._epoch = phase, epoch
        self._number = step if phase == "training" else 0

    def __call__(self) -> Order:
        self._number += 1
        here = Place(self._phase, self._epoch, self._number)
        self.places.append(here)
        return self._order if here == self._stop else Order.GO_ON

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Inside the block every change of phase is heard of, told to the journal or not."""
        enter = ProgressReport.enter

        def heard(report: ProgressReport, phase: Phase, *, epoch: int, step: int) -> None:
            self.enter(phase, epoch, step)
            enter(report, phase, epoch=epoch, step=step)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ProgressReport, "enter", heard)
            yield


def after_writing() -> Order:
    """Orders to go on, but to make no step before the checkpoint of the one before is written."""
    for thread in threading.enumerate():
        if thread.name == THREAD:
            thread.join()
    return Order.GO_ON


def run(
    spec: dn.TrainingSpec,
    data: SplitData,
    asked: Asked,
    *,
    checkpoint: Checkpoints | None = None,
    on_event: EventSink = ignore,
) -> FitResult:
    """A training that asks `asked`."""
    with asked.listening():
        return fit(spec, data, orders=asked, checkpoint=checkpoint, on_event=on_event)


def stopped_at(
    places: Iterable[Place], spec: dn.TrainingSpec, data: SplitData, folder: Path
) -> FitResult:
    """One training that is stopped at each of some places in turn, goes on each time, and ends."""
    for place in places:
        with pytest.raises(Interrupted):
            run(spec, data, Asked(place), checkpoint=Checkpoints(folder))
    return fit(spec, data, checkpoint=Checkpoints(folder))


def spread(places: list[Place], count: int) -> list[Place]:
    """At most so many of them, the first and the last among them."""
    if len(places) <= count:
        return places
    return [places[round(index * (len(places) - 1) / (count - 1))] for index in range(count)]


def of_phase(places: list[Place], phase: str) -> list[Place]:
    """The places of one phase."""
    return [place for place in places if place.phase == phase]


def telling(places: list[Place]) -> list[Place]:
    """Where a stop is most likely to tell, in the order of a training: the edges of each phase and its middle."""
    first, last = 0, max(place.epoch for place in places if place.phase != "testing") or 0
    chosen = [
        *spread(of_phase(places, "building"), 2),
        *spread(of_phase(places, "tuning"), 3),
    ]
    for epoch in sorted({first, last}):
        for phase in ("training", "validating"):
            here = [place for place in of_phase(places, phase) if place.epoch == epoch]
            chosen += spread(here, 3 if phase == "training" else 2)
    return chosen + spread(of_phase(places, "testing"), 5)
