"""What the system lets a process have: descriptors, memory, the time."""

from __future__ import annotations

import resource
import time
from datetime import UTC, datetime
from pathlib import Path

from dropnorm_service.doctor.findings import Findings, ok, warning
from dropnorm_service.settings import Settings
from dropnorm_service.workers import machine

# A connection each for 500 watchers and 20 submitters, with workers, store and MLflow beside them.
_DESCRIPTORS = 1024
_BASE_BYTES = 2 * 2**30
"""The server, the fork server with torch, and the two processes of the mirror."""
_SLOT_BYTES = 2**30
_CORES_PER_SLOT = 4  # as the executor shares them out
_GIB = 2**30
_RELEASED = datetime(2025, 11, 1, tzinfo=UTC)
_CGROUP = Path("/sys/fs/cgroup/memory.max")


def look(settings: Settings) -> Findings:
    """Descriptors, memory and the clock."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _DESCRIPTORS:
        yield warning(
            "descriptors",
            f"A process may open {soft} files and connections.",
            f"Allow {_DESCRIPTORS} or more: `ulimit -n`, LimitNOFILE= of systemd, or ulimits of compose.",
        )
    else:
        yield ok("descriptors", f"A process may open {soft} files and connections.")
    yield from _memory(settings)
    if datetime.now(UTC) < _RELEASED:
        yield warning(
            "clock",
            f"This machine believes that it is {time.strftime('%Y-%m-%d')}, before this version was made.",
            "Set the clock, best by NTP: tokens and certificates expire by it, and journals are dated by it.",
        )
    else:
        yield ok("clock", f"It is {datetime.now(UTC):%Y-%m-%d %H:%M} UTC.")


def _memory(settings: Settings) -> Findings:
    slots = settings.cpu_slots
    if slots is None:
        slots = max(1, machine.usable_cores() // _CORES_PER_SLOT)
    wanted = _BASE_BYTES + slots * _SLOT_BYTES
    limit = _group_limit()
    there = min(machine.memory_bytes(), limit or machine.memory_bytes())
    limited = f" (the limit of {_CGROUP})" if limit else ""
    text = f"{there / _GIB:.1f} GiB of memory{limited} for {slots} slots of the CPU."
    if there < wanted:
        yield warning(
            "memory",
            text,
            f"Give it {wanted / _GIB:.0f} GiB or more, or fewer --cpu-slots: workers that find none are killed.",
        )
    else:
        yield ok("memory", text)


def _group_limit() -> int | None:
    """Memory that a container or a unit of systemd may have; None: as much as the machine has."""
    try:
        return int(_CGROUP.read_text())
    except (OSError, ValueError):  # none, or "max"
        return None
