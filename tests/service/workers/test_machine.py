import os
import time
from pathlib import Path

import pytest

from dropnorm_service.workers import machine


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("50000 100000", 1),
        ("250000 100000", 3),
        ("max 100000", 6),
        ("640000000 100000", 6),
        ("", 6),
    ],
)
def test_cores_are_limited_by_affinity_and_quota(
    quota: str, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(quota)
    monkeypatch.setattr(machine, "_CPU_QUOTA", file)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    assert machine.usable_cores() == cores


def test_a_machine_without_quota_has_the_cores_of_its_affinity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_CPU_QUOTA", tmp_path / "absent")
    assert machine.usable_cores() == len(os.sched_getaffinity(0))


def test_this_machine_has_a_processor_and_memory() -> None:
    assert machine.processor_name()
    assert machine.memory_bytes() > 2**28


def test_cpu_time_of_a_group_grows_with_its_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = machine.cpu_seconds(os.getpgid(0))
    end = time.process_time() + 0.1
    while time.process_time() < end:
        sum(range(1000))
    after = machine.cpu_seconds(os.getpgid(0))
    assert before is not None
    assert after is not None
    assert after - before > 0.05
    monkeypatch.setattr(machine, "_PROCESSES", tmp_path)
    assert machine.cpu_seconds(os.getpgid(0)) is None
