"""Five hundred watchers on one job, and how the service answers meanwhile."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from tests.benchmarks.helpers import Helper
from tests.benchmarks.rows import Row, milliseconds
from tests.benchmarks.services import DIGITS, ENDLESS, running, wait_until_running

import dropnorm as dn
from dropnorm.embedded import LocalService

_WATCHERS = 500
_RESPONSIVE = 0.25
_PAUSE = 0.02


def measure(quick: bool) -> Iterator[Row]:
    """Every watcher is there before the job starts, as another job holds the slot until then."""
    epochs = 20 if quick else 100
    spec = DIGITS.model_copy(update={"optimization": dn.Optimization(epochs=epochs, batch_size=16)})
    with running() as service:
        blocker = service.train(ENDLESS)
        wait_until_running(blocker)
        job = service.train(spec)
        seen, latencies = _watch(service, job, blocker)
        last = job.refresh().snapshot.last_sequence
    complete = sum(numbers == list(range(1, len(numbers) + 1)) for numbers in seen)
    # A journal may get a late event (Tracked) after its stream has ended.
    shortest = min(map(len, seen))
    p95 = statistics.quantiles(latencies, n=20)[-1]
    yield Row(
        f"{_WATCHERS} watchers on one job",
        f"{complete} of {len(seen)} without gap, at least {shortest} of {last} events each",
        "all, in order, no gap; responsive",
        complete == _WATCHERS and shortest >= last - 1 and p95 <= _RESPONSIVE,
        f"{sum(map(len, seen)):,} events; GetTrainingJob meanwhile {milliseconds(latencies)}, "
        f"95th percentile {1e3 * p95:.0f} ms (taken as responsive: {1e3 * _RESPONSIVE:.0f} ms)",
    )


def _watch(
    service: LocalService, job: dn.JobHandle, blocker: dn.JobHandle
) -> tuple[list[list[int]], list[float]]:
    with (
        Helper("watching", service.address, _WATCHERS, job.name, niceness=10) as watching,
        ThreadPoolExecutor(1) as pool,
    ):
        watching.wait_until_ready()
        seen = pool.submit(watching.finish)
        blocker.cancel()
        latencies = []
        while not seen.done():
            start = time.perf_counter()
            service.job(job.name)
            latencies.append(time.perf_counter() - start)
            time.sleep(_PAUSE)
        return seen.result(), latencies
