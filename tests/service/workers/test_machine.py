import gc
import mmap
import os
import signal
import subprocess
import sys
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


@pytest.mark.parametrize(
    ("limits", "least"),
    [
        (("max", None), None),
        ((str(2**20), None), 2**20),
        ((None, str(2**62)), None),
        ((None, str(3 * 2**20)), 3 * 2**20),
        (("nonsense", ""), None),
    ],
)
def test_memory_is_limited_by_the_container(
    limits: tuple[str | None, ...],
    least: int | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = machine.memory_bytes()
    files = tuple(tmp_path / f"limit-{number}" for number in range(len(limits)))
    for file, text in zip(files, limits, strict=True):
        if text is not None:
            file.write_text(text)
    monkeypatch.setattr(machine, "_MEMORY_LIMITS", files)
    assert machine.memory_bytes() == (whole if least is None else least)


def test_memory_of_a_process_grows_with_what_it_holds() -> None:
    gc.collect()  # not meanwhile, it would let go of some
    before = machine.anonymous_bytes(os.getpid())
    # Straight from the kernel: the allocator may have as much left over from earlier tests. Large, since the kernel
    # counts in portions, the larger the more cores there are.
    with mmap.mmap(-1, 2**26, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as held:
        held.write(b"x" * len(held))
        after = machine.anonymous_bytes(os.getpid())
        assert before is not None
        assert after is not None
        assert after - before > 0.9 * len(held)
    assert machine.anonymous_bytes(2**30) is None
    assert machine.memory_kills() is not None


def test_cpu_time_of_a_group_grows_with_its_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = """
import os, time
os.setpgid(0, 0)  # in the group of the tests others come and go
from dropnorm_service.workers.machine import cpu_use
before = cpu_use(os.getpid())
end = time.process_time() + 0.1
while time.process_time() < end:
    sum(range(1000))
after = cpu_use(os.getpid())
print(after.seconds - before.seconds, after.wanted)
"""
    said = subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE)
    seconds, wanted = said.stdout.split()
    assert float(seconds) > 0.05
    assert wanted == b"True"
    monkeypatch.setattr(machine, "_PROCESSES", tmp_path)
    assert machine.cpu_use(os.getpgid(0)) is None


def test_a_process_that_is_stopped_wants_no_cpu() -> None:
    program = "print(flush=True)\nwhile True: sum(range(1000))"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        busy = machine.cpu_use(child.pid)
        child.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED)
        stopped = machine.cpu_use(child.pid)
        child.kill()
    assert busy is not None
    assert busy.wanted
    assert stopped is not None
    assert not stopped.wanted
