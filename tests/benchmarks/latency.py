"""A small job on a warm, idle service: how long to its first step, and to its result."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

from tests.benchmarks.rows import Row, milliseconds
from tests.benchmarks.services import DIGITS, made_a_step, rounds, running, wait_until_idle

from dropnorm.embedded import LocalService


def measure(quick: bool) -> Iterator[Row]:
    """Both durations, each of jobs of its own, in turn."""
    first_step, result = [], []
    with running() as service:
        service.train(DIGITS).result()  # data set parsed, plan cached
        for _ in rounds(15, quick):
            wait_until_idle(service)
            first_step.append(_to_first_step(service))
            wait_until_idle(service)
            result.append(_to_result(service))
    note = "digits, 128-64-10, mirror on, idle before each"
    yield Row(
        "Create to the first finished optimizer step",
        milliseconds(first_step),
        "<= 60 ms",
        statistics.median(first_step) <= 0.060,
        note,
    )
    yield Row(
        "Create to the Evaluation, 5 epochs",
        milliseconds(result),
        "<= 400 ms",
        statistics.median(result) <= 0.400,
        note,
    )


def _to_first_step(service: LocalService) -> float:
    start = time.perf_counter()
    job = service.train(DIGITS)
    for event in job.watch():
        if made_a_step(event):
            seconds = time.perf_counter() - start
            job.result()
            return seconds
    raise RuntimeError(f"{job!r} ended without a step")


def _to_result(service: LocalService) -> float:
    start = time.perf_counter()
    service.train(DIGITS).result()
    return time.perf_counter() - start
