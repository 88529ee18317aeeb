"""Training inside the service against the loops of `peers`, run one after the other in turn."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator

from tests.benchmarks.peers import EPOCHS
from tests.benchmarks.rows import Row, ratio
from tests.benchmarks.services import DIGITS, rounds, running, wait_until_idle
from tests.mnist import MNIST

import dropnorm as dn
from dropnorm.embedded import LocalService

_TARGETS = {"plain": ("plain DataLoader loop", 1.6), "tuned": ("tuned loop", 0.95)}

_SPEC = DIGITS.model_copy(
    update={
        "data": dn.Data(dataset="mnist"),
        "optimization": dn.Optimization(epochs=EPOCHS, batch_size=128),
    }
)


def measure(quick: bool) -> Iterator[Row]:
    """A ratio per peer: in each round the service's rate over the better rate of the peer's thread counts."""
    if not MNIST.is_dir():
        for title, target in _TARGETS.values():
            reason = f"MNIST is not in {MNIST}; name its folder by DROPNORM_TEST_MNIST"
            yield Row(_name(title), "", f">= {target} x", None, reason)
        return
    counts = sorted({1, os.cpu_count() or 1})
    ours: list[float] = []
    rates: dict[tuple[str, int], list[float]] = {(p, n): [] for p in _TARGETS for n in counts}
    with running(datasets_dir=MNIST.parent) as service:
        threads = service.train(_SPEC).result().cost.threads  # the data set is parsed now
        for _ in rounds(6, quick):
            wait_until_idle(service)
            ours.append(_service_rate(service))
            wait_until_idle(service)  # the mirror exports the model
            for (loop, count), values in rates.items():
                values.append(_peer_rate(loop, count))
    for loop, (title, target) in _TARGETS.items():
        best = [max(values) for values in zip(*(rates[loop, n] for n in counts), strict=True)]
        ratios = [mine / other for mine, other in zip(ours, best, strict=True)]
        theirs = ", ".join(f"{_median(rates[loop, n])} on {n}" for n in counts)
        yield Row(
            _name(title),
            ratio(ratios),
            f">= {target} x",
            statistics.median(ratios) >= target,
            f"training steps only, evaluation left out; samples/s: ours {_median(ours)} on {threads} thread(s), "
            f"theirs {theirs}; ratio to their better",
        )


def _name(title: str) -> str:
    return f"MNIST training in the service, mirror and watcher on, to a {title}"


def _median(rates: list[float]) -> str:
    return f"{statistics.median(rates):,.0f}"


def _service_rate(service: LocalService) -> float:
    """Median samples per second of all epochs but the first; `result` is the watcher."""
    history = service.train(_SPEC).result().history
    return statistics.median([epoch.samples_per_second for epoch in history[1:]])


def _peer_rate(loop: str, threads: int) -> float:
    command = [sys.executable, "-m", "tests.benchmarks.peers", loop, str(MNIST), str(threads)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    rates: list[float] = json.loads(output)
    return statistics.median(rates[1:])
