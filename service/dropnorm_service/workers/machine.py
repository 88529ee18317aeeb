"""What the machine offers, read without torch."""

from __future__ import annotations

import math
import os
import platform
import re
from pathlib import Path
from typing import NamedTuple

_CPU_INFO = Path("/proc/cpuinfo")
_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_PROCESSES = Path("/proc")
# A container's limit on memory: of control groups, version 2 and 1.
_MEMORY_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
_EVENTS = Path("/proc/vmstat")
_ANONYMOUS = re.compile(r"^RssAnon:\s+(\d+) kB$", re.MULTILINE)
_KILLS = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


def usable_cores() -> int:
    """CPU cores this process may use: its affinity, and a container's quota where there is one."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        cores = os.cpu_count() or 1
    quota = _cpu_quota()
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


def _cpu_quota() -> float | None:
    try:
        quota, period = _CPU_QUOTA.read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)


def processor_name() -> str:
    """Model of the processor."""
    try:
        for line in _CPU_INFO.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def memory_bytes() -> int:
    """Memory that this process's machine or container has."""
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([whole, *filter(None, map(_limit_of, _MEMORY_LIMITS))])


def _limit_of(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # there is none, or it is "max"
        return None


def anonymous_bytes(pid: int) -> int | None:
    """Memory of a process that is its own, not files'; None when it has ended, or nobody can tell."""
    try:
        found = _ANONYMOUS.search((_PROCESSES / str(pid) / "status").read_text())
    except OSError:
        return None
    return None if found is None else int(found[1]) * 1024


def memory_kills() -> int | None:
    """How many processes of this machine the kernel has ended for want of memory; None where nobody can tell."""
    try:
        found = _KILLS.search(_EVENTS.read_text())
    except OSError:
        return None
    return None if found is None else int(found[1])


class CpuUse(NamedTuple):
    """What a process group has to do with the CPU."""

    seconds: float
    """CPU time that it has used so far, its children's included."""
    wanted: bool
    """Whether one of its processes runs, or would if a core were free."""


def cpu_use(group: int) -> CpuUse | None:
    """What a process group uses; None where nobody can tell. Costs a look at every process of the machine."""
    if not (_PROCESSES / "self" / "stat").exists():
        return None
    ticks, wanted = 0, False
    for stat in _PROCESSES.glob("[0-9]*/stat"):
        try:
            # After the name, which may hold anything: state, parent, group, ... as proc(5) numbers them.
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[2]) == group:
            ticks += sum(map(int, fields[11:15]))
            wanted = wanted or fields[0] == "R"
    return CpuUse(ticks / os.sysconf("SC_CLK_TCK"), wanted)
