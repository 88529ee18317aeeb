"""Orders to stop that come at awkward moments: when a training has diverged, and when its time is over."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest
from tests.service.training.made import split_of
from tests.service.training.resumption_cases import CASES
from tests.service.training.stopping import Asked, Place
from tests.service.training.test_divergence import STEP, diverged, of_mlp, poison
from tests.service.training.test_writer import SlowDisk

from dropnorm_service.training import Diverged, Interrupted, Order, SplitData, fit

EPOCH = 3
"""Steps of one of the training that diverges."""
STOPS = [Order.PAUSE, Order.CANCEL]


class Letting:
    """Orders that let a disk write when they stop a training."""

    def __init__(self, asked: Asked, disk: SlowDisk) -> None:
        self._asked, self._disk = asked, disk

    def __call__(self) -> Order:
        order = self._asked()
        if order is not Order.GO_ON:
            self._disk.let.set()
        return order


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> SplitData:
    poison(monkeypatch, "hidden.0.linear", "output")
    data = of_mlp()[1]
    assert math.ceil(len(data.train) / 48) == EPOCH
    return data


def not_looked_for(error: Diverged, asked: Asked) -> bool:
    """Whether nothing was trained again for the layer."""
    return "layer" not in error.metadata and asked.places.count(Place("building", 0, 1)) == 1


@pytest.mark.parametrize("order", STOPS)
def test_behind_the_step_that_diverged_it_ends_the_training_at_once(
    order: Order, poisoned: SplitData
) -> None:
    asked = Asked(Place("training", 1, STEP), order)
    with asked.listening():
        error = diverged(of_mlp()[0], poisoned, orders=asked)
    assert not_looked_for(error, asked)


@pytest.mark.parametrize("order", STOPS)
def test_while_a_training_that_diverged_waits_for_the_disk_it_ends_it_at_once(
    order: Order, poisoned: SplitData, tmp_path: Path
) -> None:
    disk = SlowDisk(tmp_path, interval_seconds=0.0)
    asked = Asked(Place("training", 1, 2 * EPOCH + 1), order)  # there is no such step
    with asked.listening():
        error = diverged(of_mlp()[0], poisoned, orders=Letting(asked, disk), checkpoint=disk)
    assert not_looked_for(error, asked)
    assert disk.written == 1


@pytest.mark.parametrize("order", STOPS)
def test_while_the_last_checkpoint_of_a_training_out_of_time_is_written_it_is_obeyed(
    order: Order, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, dataset = CASES["adam as it is"]
    disk = SlowDisk(tmp_path)
    asked = Asked(Place("training", 0, 3), order)  # the question behind that of step 2
    clock = time.perf_counter

    def leaping() -> float:
        return clock() + 1e6 * (Place("training", 0, 2) in asked.places)

    monkeypatch.setattr(time, "perf_counter", leaping)
    with asked.listening(), pytest.raises(Interrupted) as stopped:
        fit(
            spec,
            split_of(spec, dataset),
            orders=Letting(asked, disk),
            checkpoint=disk,
            time_limit=1e5,
        )
    assert stopped.value.order is order
    assert disk.written == 1
