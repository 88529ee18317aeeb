"""Checkpoints are written beside the training, one at a time, and cost it next to nothing."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.service.training.made import checkpoints_told, of_kind, split_of
from tests.service.training.resumption_cases import CASES
from tests.service.training.stopping import Asked, Place, after_writing, outcome, run

from dropnorm.results import CheckpointWritten, EpochCompleted, Payload, Warned
from dropnorm_service.training import Checkpoints, FitResult, Interrupted, Order, SplitData, fit
from dropnorm_service.training.checkpoint import Snapshot
from dropnorm_service.training.judging import Judge
from dropnorm_service.training.writer import CheckpointWriter

SPEC, DATASET = CASES["adam as it is"]


@pytest.fixture
def data() -> SplitData:
    return split_of(SPEC, DATASET)


class SlowDisk(Checkpoints):
    """Writes when it is let, and counts what is written at once."""

    def __init__(self, folder: Path, **settings: float) -> None:
        super().__init__(folder, **settings)
        self.let = threading.Event()
        self.begun = threading.Event()
        self.at_once = self.most = self.written = 0

    def write(self, snapshot: Snapshot) -> int:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        self.begun.set()
        assert self.let.wait(60.0)
        size = super().write(snapshot)
        self.at_once -= 1
        self.written += 1
        return size


NO_SPACE = OSError(errno.ENOSPC, "No space left on device")


class NoRoom(Checkpoints):
    """Has none at first, on the disk or in memory."""

    def __init__(
        self, folder: Path, times: int, error: Exception = NO_SPACE, **settings: float
    ) -> None:
        super().__init__(folder, **settings)
        self.times, self.error = times, error

    def write(self, snapshot: Snapshot) -> int:
        if self.times:
            self.times -= 1
            raise self.error
        return super().write(snapshot)


@pytest.fixture
def no_more_threads() -> Iterator[None]:
    """Of a stack that fits into no memory, as any is too large for a worker that uses all it may."""
    threading.stack_size(1 << 47)
    try:
        with pytest.raises(RuntimeError, match="can't start new thread"):
            threading.Thread().start()
        yield
    finally:
        threading.stack_size(0)


@pytest.fixture(autouse=True)
def _whatever_it_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dropnorm_service.training.writer._COST_LIMIT", 1e9)


def test_training_goes_on_while_a_checkpoint_is_written(data: SplitData, tmp_path: Path) -> None:
    """The disk waits until the training has come to its end, which waits for the disk alone."""
    disk, events = SlowDisk(tmp_path, interval_seconds=0.0), list[Payload]()

    def on_event(event: Payload) -> None:
        events.append(event)
        if isinstance(event, EpochCompleted) and event.metrics.epoch == 3:
            assert disk.begun.wait(60.0)
            assert (disk.most, disk.written) == (1, 0)
            disk.let.set()

    result = fit(SPEC, data, on_event=on_event, checkpoint=disk)
    assert disk.most == 1, "never two at once, and never two copies"
    assert checkpoints_told(events)[0] == (0, 0)
    assert disk.at_once == 0
    assert outcome(result) == outcome(fit(SPEC, data))


def test_what_is_written_is_the_state_at_its_beginning(data: SplitData, tmp_path: Path) -> None:
    disk = SlowDisk(tmp_path, interval_seconds=0.0)
    disk.write = lambda snapshot: (  # type: ignore[method-assign]
        0 if disk.written else SlowDisk.write(disk, snapshot)
    )

    def on_event(event: Payload) -> None:
        if isinstance(event, EpochCompleted):
            disk.let.set()

    whole = outcome(fit(SPEC, data, on_event=on_event, checkpoint=disk))
    snapshot, _ = Checkpoints(tmp_path).read()
    assert snapshot is not None
    assert (snapshot.facts["step"], snapshot.facts["history"]) == (0, [])
    assert outcome(fit(SPEC, data, checkpoint=Checkpoints(tmp_path))) == whole


def test_a_stop_waits_for_the_disk_and_asks_meanwhile(data: SplitData, tmp_path: Path) -> None:
    """So that the heart beats on, and who cancels meanwhile is heard."""
    disk = SlowDisk(tmp_path)
    asked, waiting = Asked(Place("training", 0, 2)), 0

    def orders() -> Order:
        nonlocal waiting
        if not disk.begun.is_set():
            return asked()
        waiting += 1
        if waiting == 3:
            disk.let.set()
            return Order.CANCEL
        return Order.GO_ON

    with asked.listening(), pytest.raises(Interrupted) as raised:
        fit(SPEC, data, orders=orders, checkpoint=disk)
    assert raised.value.order is Order.CANCEL
    assert disk.written == 1


def test_a_stop_while_a_periodic_one_is_written_is_written_behind_it(
    data: SplitData, tmp_path: Path
) -> None:
    disk, events = SlowDisk(tmp_path, interval_seconds=0.0), list[Payload]()
    asked = Asked(Place("training", 1, 6))

    def orders() -> Order:
        if (order := asked()) is not Order.GO_ON:
            disk.let.set()
        return order

    with asked.listening(), pytest.raises(Interrupted):
        fit(SPEC, data, orders=orders, on_event=events.append, checkpoint=disk)
    assert checkpoints_told(events) == [(0, 0), (1, 6)]
    assert disk.most == 1


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (NO_SPACE, "No space left on device"),
        (MemoryError(), "no memory is left"),
        (torch.OutOfMemoryError("CUDA out of memory."), "no memory is left"),
    ],
    ids=["disk", "memory", "device"],
)
def test_no_room_is_warned_of_once_and_the_training_goes_on(
    error: Exception, why: str, data: SplitData, tmp_path: Path
) -> None:
    disk, events = NoRoom(tmp_path, 2, error, interval_seconds=0.0), list[Payload]()
    result = fit(SPEC, data, orders=after_writing, on_event=events.append, checkpoint=disk)
    (warning,) = of_kind(events, Warned)
    assert warning.code == "CHECKPOINT_NOT_WRITTEN"
    assert f"({why})" in warning.message
    assert of_kind(events, CheckpointWritten), "when there is room again"
    assert outcome(result) == outcome(fit(SPEC, data))


def test_where_memory_has_no_room_for_a_copy_the_training_waits(
    data: SplitData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(snapshot: Snapshot) -> Snapshot:
        raise RuntimeError(
            "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        )

    monkeypatch.setattr(Snapshot, "copied", no_room)
    events, checkpoints = list[Payload](), Checkpoints(tmp_path, interval_seconds=0.0)
    result = fit(SPEC, data, on_event=events.append, checkpoint=checkpoints)
    written = [event.step for event in of_kind(events, CheckpointWritten)]
    assert set(written) == set(range(max(written) + 1)), "behind every step"
    assert outcome(result) == outcome(fit(SPEC, data))


@pytest.mark.usefixtures("no_more_threads")
def test_where_no_thread_can_be_started_the_training_waits(data: SplitData, tmp_path: Path) -> None:
    events, checkpoints = list[Payload](), Checkpoints(tmp_path, interval_seconds=0.0)
    result = fit(SPEC, data, on_event=events.append, checkpoint=checkpoints)
    assert of_kind(events, CheckpointWritten)
    assert outcome(result) == outcome(fit(SPEC, data))


@pytest.mark.usefixtures("no_more_threads")
@pytest.mark.parametrize("order", [Order.PAUSE, Order.CANCEL])
def test_a_stop_is_written_where_no_thread_can_be_started(
    order: Order, data: SplitData, tmp_path: Path
) -> None:
    events = list[Payload]()
    asked, checkpoints = Asked(Place("training", 0, 2), order), Checkpoints(tmp_path)
    with pytest.raises(Interrupted):
        run(SPEC, data, asked, checkpoint=checkpoints, on_event=events.append)
    assert checkpoints_told(events) == [(0, 2)]
    assert outcome(fit(SPEC, data, checkpoint=Checkpoints(tmp_path))) == outcome(fit(SPEC, data))


@pytest.mark.parametrize("order", [Order.PAUSE, Order.CANCEL])
def test_while_it_waits_for_want_of_memory_orders_are_heard_and_obeyed(
    order: Order, data: SplitData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(snapshot: Snapshot) -> Snapshot:
        raise MemoryError

    monkeypatch.setattr(Snapshot, "copied", no_room)
    disk = SlowDisk(tmp_path, interval_seconds=0.0)

    def orders() -> Order:
        if not disk.begun.is_set() or disk.let.is_set():
            return Order.GO_ON
        disk.let.set()
        return order

    with pytest.raises(Interrupted) as stopped:
        fit(SPEC, data, orders=orders, checkpoint=disk)
    assert stopped.value.order is order
    assert outcome(fit(SPEC, data, checkpoint=Checkpoints(tmp_path))) == outcome(fit(SPEC, data))


def test_who_cancels_while_the_last_checkpoint_is_written_is_heard(
    data: SplitData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conclude, concluded = Judge.conclude, threading.Event()

    def concluding(judge: Judge) -> FitResult:
        result = conclude(judge)
        concluded.set()
        return result

    monkeypatch.setattr(Judge, "conclude", concluding)
    disk = SlowDisk(tmp_path, interval_seconds=0.0)

    def orders() -> Order:
        if not concluded.is_set() or disk.let.is_set():
            return Order.GO_ON
        disk.let.set()
        return Order.CANCEL

    with pytest.raises(Interrupted) as stopped:
        fit(SPEC, data, orders=orders, checkpoint=disk)
    assert stopped.value.order is Order.CANCEL


def test_a_stop_that_cannot_be_written_is_an_error(data: SplitData, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        run(SPEC, data, Asked(Place("training", 0, 2)), checkpoint=NoRoom(tmp_path, 1))


def _nothing() -> Snapshot:
    return Snapshot({"x": torch.zeros(2)}, {})


class Clock:
    """Goes on when it is told to."""

    now = 1000.0

    def perf_counter(self) -> float:
        return self.now

    def thread_time(self) -> float:
        return 0.0


def test_one_is_due_after_the_interval_and_not_before_it_has_paid_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    clock = Clock()
    monkeypatch.setattr("dropnorm_service.training.writer.time", clock)

    def capture() -> Snapshot:
        clock.now += 0.5
        return _nothing()

    writer = CheckpointWriter(Checkpoints(tmp_path, interval_seconds=0.0))
    assert writer.due(clock.now)
    writer.begin(capture, epoch=0, step=0)
    assert writer.wait(60.0)
    writer.take()
    assert not writer.due(clock.now + 100 * 0.5 - 1.0)
    assert writer.due(clock.now + 100 * 0.5)
    writer.hurry()
    assert writer.due(clock.now)
    seldom = CheckpointWriter(Checkpoints(tmp_path, interval_seconds=30.0))
    assert not seldom.due(clock.now + 29.0)
    assert seldom.due(clock.now + 30.0)


def test_none_is_due_while_one_is_written(tmp_path: Path) -> None:
    disk = SlowDisk(tmp_path, interval_seconds=0.0)
    writer = CheckpointWriter(disk)
    writer.begin(_nothing, epoch=1, step=2)
    assert writer.busy
    assert not writer.due(time.perf_counter() + 1e6)
    assert not writer.wait(0.01)
    disk.let.set()
    assert writer.wait(60.0)
    write = writer.take()
    assert (write.epoch, write.step) == (1, 2)
    assert not writer.busy


def test_an_error_of_the_thread_is_raised_where_it_is_asked_for(tmp_path: Path) -> None:
    def fail(snapshot: Any) -> int:
        raise ValueError("unforeseen")

    disk = Checkpoints(tmp_path)
    disk.write = fail  # type: ignore[method-assign]
    writer = CheckpointWriter(disk)
    writer.begin(_nothing, epoch=0, step=0)
    assert writer.wait(60.0)
    with pytest.raises(ValueError, match="unforeseen"):
        writer.take()
