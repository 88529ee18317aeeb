"""What the machine offers, read without torch."""

from __future__ import annotations

import math
import os
import platform
from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")
_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_PROCESSES = Path("/proc")


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
    """Memory of the machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(group: int) -> float | None:
    """CPU time that a process group has used so far, its children's included; None where nobody can tell.

    Costs a look at every process of the machine.
    """
    if not (_PROCESSES / "self" / "stat").exists():
        return None
    ticks = 0
    for stat in _PROCESSES.glob("[0-9]*/stat"):
        try:
            # After the name, which may hold anything: state, parent, group, ... as proc(5) numbers them.
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[2]) == group:
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")
