"""Proof that an exported model is the original: both are run on the same inputs, and timed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from dropnorm.results import ExportProof
from dropnorm_service.training.batching import Batching

Run = Callable[[Tensor], Tensor]
"""A model: raw inputs `[batch, ...]` -> outputs `[batch, ...]`."""

_BATCH = 256
_TIMED_BATCH = 32
_REPETITIONS = 30
_TIMED_SECONDS = 3.0
_LEAST_REPETITIONS = 3


@torch.inference_mode()
def prove(original: Run, exported: Run, x: Tensor, classes: Tensor | None) -> ExportProof:
    """Run both on the same inputs.

    Args:
        original: the model as it was trained.
        exported: the model that was read back from its file.
        x: raw inputs, `[inputs, ...]`.
        classes: the right class of each; None: there are none.
    """
    deviation = largest = 0.0
    right = original_right = 0
    for batch in Batching.of(len(x), _BATCH).slices:
        expected, given = original(x[batch]).double(), exported(x[batch]).double()
        difference = (given - expected).abs().max().item()
        # A model that says NaN where the original does not is as far from it as can be.
        deviation = max(deviation, float("inf") if difference != difference else difference)
        largest = max(largest, expected.abs().max().item())
        if classes is not None:
            right += _right(given, classes[batch])
            original_right += _right(expected, classes[batch])
    count = min(_TIMED_BATCH, len(x))
    times, original_times = _time_in_turns(exported, original, x[:count])
    return ExportProof(
        samples=len(x),
        largest_deviation=deviation,
        largest_output=largest,
        accuracy=None if classes is None else right / len(x),
        original_accuracy=None if classes is None else original_right / len(x),
        batch_size=count,
        threads=torch.get_num_threads(),
        milliseconds=1e3 * statistics.median(times),
        original_milliseconds=1e3 * statistics.median(original_times),
    )


def _right(outputs: Tensor, classes: Tensor) -> int:
    return int((outputs.argmax(dim=1) == classes).sum())


def _time_in_turns(first: Run, second: Run, x: Tensor) -> tuple[list[float], list[float]]:
    """Seconds of each run. In turns, so that what else the machine does meets both alike."""
    times: tuple[list[float], list[float]] = ([], [])
    started = time.perf_counter()
    for number in range(_REPETITIONS):
        for run, taken in zip((first, second), times, strict=True):
            before = time.perf_counter()
            run(x)
            taken.append(time.perf_counter() - before)
        late = time.perf_counter() - started > _TIMED_SECONDS
        if late and number + 1 >= _LEAST_REPETITIONS:
            break
    return times
