"""Services to measure, each with a data folder of its own, and the jobs they are given."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil

import dropnorm as dn
from dropnorm.embedded import LocalService
from dropnorm.results import Event, Progressed

DIGITS = dn.TrainingSpec(
    architecture=dn.MLP(hidden=(128, 64)),
    data=dn.Data(dataset="digits"),
    optimization=dn.Optimization(epochs=5),
    compute=dn.Compute(device="cpu"),
)
ENDLESS = DIGITS.model_copy(
    update={"optimization": dn.Optimization(epochs=100_000, batch_size=1024)}
)

_IDLE_SHARE = 0.05
_LOOK = 0.3
_PATIENCE = 120.0


@contextmanager
def running(**settings: Any) -> Iterator[LocalService]:
    """A fresh service with one CPU slot unless `settings` say otherwise."""
    with (
        tempfile.TemporaryDirectory(prefix="dropnorm-bench-") as folder,
        dn.local(folder, **{"cpu_slots": 1, **settings}) as service,
    ):
        yield service


def pid(service: LocalService) -> int:
    """Process id of the server."""
    return service._process.pid


def wait_until_idle(service: LocalService) -> None:
    """Wait until the server and all its children together use under 5 % of a core.

    Raises:
        TimeoutError: they do not come to rest.
    """
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        before = _cpu_seconds(service)
        time.sleep(_LOOK)
        used = sum(
            seconds - before.get(process, 0.0) for process, seconds in _cpu_seconds(service).items()
        )
        if used < _IDLE_SHARE * _LOOK:
            return
    raise TimeoutError(f"{service!r} was never idle in {_PATIENCE:g} s")


def wait_until_running(job: dn.JobHandle) -> None:
    """Wait for a job's first optimizer step."""
    for event in job.watch():
        if made_a_step(event):
            return


def made_a_step(event: Event) -> bool:
    """Whether an event tells of a finished optimizer step."""
    return isinstance(event.payload, Progressed) and event.payload.progress.step >= 1


def rounds(count: int, quick: bool) -> Iterator[int]:
    """The numbers of `count` repetitions; a third of them when it should be quick."""
    return iter(range(max(3, count // 3) if quick else count))


def _cpu_seconds(service: LocalService) -> dict[int, float]:
    server = psutil.Process(pid(service))
    seconds = {}
    for process in itertools.chain([server], server.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:  # it ended since it was listed
            continue
        seconds[process.pid] = times.user + times.system
    return seconds
