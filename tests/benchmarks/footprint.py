"""What the server process holds in memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.rows import Row
from tests.benchmarks.services import DIGITS, pid, running, wait_until_idle

_LIMIT_MIB = 150
# MLflow is Python alone and leaves no mapped file of its own, but it does not come without pandas.
_FORBIDDEN = ("torch", "mlflow", "numpy", "pandas")


def measure(quick: bool) -> Iterator[Row]:
    """Resident memory of a fresh server, and of one that has run a job."""
    with running() as service:
        wait_until_idle(service)
        process = Path(f"/proc/{pid(service)}")
        fresh = _resident_mib(process)
        service.train(DIGITS).result()
        wait_until_idle(service)
        used, loaded = _resident_mib(process), _loaded(process)
    yield Row(
        "Server process at rest",
        f"{fresh:.0f} MiB fresh, {used:.0f} MiB after a job",
        f"<= {_LIMIT_MIB} MiB, torch and MLflow not loaded",
        max(fresh, used) <= _LIMIT_MIB and not loaded,
        f"loaded: {', '.join(loaded)}" if loaded else f"none of {', '.join(_FORBIDDEN)} is mapped",
    )


def _resident_mib(process: Path) -> float:
    match = re.search(r"VmRSS:\s+(\d+) kB", (process / "status").read_text())
    assert match is not None
    return int(match[1]) / 1024


def _loaded(process: Path) -> list[str]:
    maps = (process / "maps").read_text()
    return [name for name in _FORBIDDEN if f"/{name}/" in maps]
