from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tests.service.workers.conftest import training

from dropnorm.results import JobError
from dropnorm.spec import TrainingSpec
from dropnorm_service.jobs.ports import Finished, Launch, Lost, Outcome, Stopped
from dropnorm_service.workers import machine
from dropnorm_service.workers.messages import Gpu
from dropnorm_service.workers.slots import Need, Seat, SlotTable, note


def table(gpus: int, cpu_slots: int | None = 1, threads: int | None = 2) -> SlotTable:
    found = [
        Gpu(name="A GPU", memory_bytes=(number + 1) * 2**30, visible=f"{7 - number}")
        for number in range(gpus)
    ]
    return SlotTable.of_machine(found, cpu_slots=cpu_slots, threads=threads)


def computing(**compute: object) -> TrainingSpec:
    return training(compute=compute)


@pytest.mark.parametrize(
    ("gpus", "compute", "need"),
    [
        (0, {}, Need("cpu", 1)),
        (2, {}, Need("cuda", 1)),
        (2, {"gpus": 0}, Need("cpu", 1)),
        (2, {"gpus": 2}, Need("cuda", 2)),
        (0, {"gpus": 1}, Need("cuda", 1)),
        (2, {"device": "cpu"}, Need("cpu", 1)),
        (0, {"device": "cuda"}, Need("cuda", 1)),
        (2, {"device": "cuda", "gpus": 2}, Need("cuda", 2)),
    ],
)
def test_what_a_spec_needs_depends_on_what_there_is(
    gpus: int, compute: dict[str, object], need: Need
) -> None:
    assert table(gpus).need(computing(**compute)) == need


@pytest.mark.parametrize(
    ("gpus", "cpu_slots", "compute", "obstacle"),
    [
        (0, 1, {}, None),
        (1, 1, {"device": "cuda"}, None),
        (0, 1, {"device": "cuda"}, "a GPU and this service has none; choose device cpu or auto"),
        (1, 1, {"gpus": 3}, "3 GPUs and this service has one; ask for fewer"),
        (2, 1, {"gpus": 3}, "3 GPUs and this service has 2; ask for fewer"),
        (1, 0, {"device": "cpu"}, "no slot on the CPU; choose device cuda"),
    ],
)
def test_what_can_never_run_is_told_why(
    gpus: int, cpu_slots: int, compute: dict[str, object], obstacle: str | None
) -> None:
    told = table(gpus, cpu_slots).obstacle(computing(**compute))
    assert told is None if obstacle is None else told is not None and obstacle in told


def test_slots_are_taken_and_shown(launch: Callable[..., Launch]) -> None:
    slots = table(gpus=3)
    first = launch(computing(gpus=2), job_id="first", attempt=4)
    seats = slots.take(first)
    assert [(seat.id, seat.visible) for seat in seats] == [("cuda-0", "7"), ("cuda-1", "6")]
    shown = {seat.id: (seat.view().training_job, seat.view().attempt) for seat in slots.seats}
    assert shown == {
        "cuda-0": ("trainingJobs/first", 4),
        "cuda-1": ("trainingJobs/first", 4),
        "cuda-2": ("", 0),
        "cpu-0": ("", 0),
    }
    assert slots.fits(computing(gpus=1))
    assert not slots.fits(computing(gpus=2))
    with pytest.raises(RuntimeError, match="no slot is free"):
        slots.take(launch(computing(gpus=2)))
    assert [seat.id for seat in slots.take(launch(computing(gpus=1)))] == ["cuda-2"]


def test_the_memory_that_counts_is_that_of_the_smallest_device_of_its_kind() -> None:
    slots = table(gpus=2)
    assert slots.memory_limit(computing()) == 2**30
    # Three slots share nine tenths of the machine's, and torch itself takes some.
    limit = slots.memory_limit(computing(device="cpu"))
    assert slots.worker_memory == int(0.9 * machine.memory_bytes() / 3)
    assert limit == slots.worker_memory - 300 * 2**20
    assert table(gpus=0).memory_limit(computing(device="cuda")) is None


@pytest.mark.parametrize(
    ("cores", "cpu_slots", "threads", "expected"),
    [
        (1, None, None, [1]),
        (2, None, None, [2]),
        (8, None, None, [4, 4]),
        (9, 4, None, [2] * 4),
        (2, 4, None, [1] * 4),
        (8, 2, 3, [3, 3]),
    ],
)
def test_the_cores_are_shared_out(
    cores: int,
    cpu_slots: int | None,
    threads: int | None,
    expected: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: cores)
    assert [seat.threads for seat in table(0, cpu_slots, threads).seats] == expected


BROKEN = Lost(JobError(code=14, reason="DEVICE_ERROR", message="The device failed: ECC."))


class Clock:
    """Stands still."""

    def monotonic(self) -> float:
        return 1000.0


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dropnorm_service.workers.slots.time", Clock())


def launched(job_id: str, **compute: object) -> Launch:
    return Launch(job_id=job_id, attempt=1, spec=computing(**compute), folder=Path("/none"))


def leave(seats: Sequence[Seat], outcome: Outcome) -> None:
    note(outcome, seats)
    for seat in seats:
        seat.launch = None


def test_after_a_device_error_the_next_attempt_takes_another_slot_also_when_it_has_to_wait() -> (
    None
):
    slots = table(2)
    first = slots.take(launched("a"))
    leave(first, BROKEN)
    assert slots.rest() == 60.0
    second = slots.take(launched("a"))
    assert second[0].id != first[0].id
    assert not slots.fits(computing()), "the one that broke rests"
    leave(second, Finished())
    assert slots.fits(computing())


def test_where_all_devices_broke_the_soundest_has_to_do() -> None:
    slots = table(2)
    for outcome in (BROKEN, BROKEN, BROKEN):
        leave(slots.take(launched("a")), outcome)
    faults = {seat.id: seat.faults for seat in slots.seats}
    assert sorted(faults.values()) == [0, 1, 2]
    (seat,) = slots.take(launched("a"))
    assert seat.faults == 1
    leave((seat,), Stopped("pause"))
    assert seat.faults == 0


def test_several_gpus_are_had_of_those_that_broke_if_there_are_too_few_others() -> None:
    slots = table(2)
    leave(slots.take(launched("a")), BROKEN)
    assert slots.fits(computing(gpus=2))
    assert len(slots.take(launched("b", gpus=2))) == 2


def test_each_time_it_rests_longer() -> None:
    (seat,) = table(0).seats
    rests = []
    for _ in range(9):
        seat.broke()
        rests.append(seat.rest)
    assert rests[:3] == [60.0, 120.0, 240.0]
    assert rests[-1] == 3600.0
