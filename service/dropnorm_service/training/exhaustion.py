"""What to do when memory ran out: what the planner's memory model says of the spec, and what would fit."""

from __future__ import annotations

import gc
import re
from pathlib import Path

import torch

from dropnorm.results import DatasetSummary, MemoryEstimate
from dropnorm.spec import TrainingSpec
from dropnorm_service.training.design import Design
from dropnorm_service.training.errors import OutOfMemory
from dropnorm_service.training.memory import StepMemory
from dropnorm_service.training.planning import size
from dropnorm_service.training.timetable import Timetable, largest_part

_MEMORY_INFO = Path("/proc/meminfo")
_AVAILABLE = re.compile(r"MemAvailable:\s+(\d+) kB")


def advised(
    error: OutOfMemory,
    spec: TrainingSpec,
    paper: Design,
    dataset: DatasetSummary,
    device: torch.device,
    limit: int,
) -> OutOfMemory:
    """The error with the estimate of a step, and the largest batch that would have fitted by it.

    Args:
        error: raised when the memory ran out; nothing of the training is held any more.
        spec: with its batch size found.
        paper: its network.
        dataset: its data.
        device: whose memory it was.
        limit: memory that the training could count on, in bytes.
    """
    gc.collect()
    memory = StepMemory(spec, paper, dataset)
    timetable = Timetable.of(spec.optimization, dataset.train_samples)
    part = largest_part(spec.optimization, timetable)
    estimate = memory.of(part).total
    free = min(limit, _free_bytes(device, limit))
    # Where it should have fitted the estimate leaves something out, so that half of it is the next to be tried.
    room = free if estimate > free else estimate // 2
    sizes = [part >> halvings for halvings in range(1, part.bit_length())]
    fitting = next((each for each in sizes if _at_peak(memory.of(each)) <= room), None)
    field = "optimization.batch_size"
    if spec.optimization.micro_batch_size is not None:
        field = "optimization.micro_batch_size"
    if fitting is None:
        advice = (
            "No batch size would fit by that estimate; give a smaller network or fewer samples."
        )
    else:
        advice = f"Give {field} {fitting}, which would fit by that estimate, or a smaller network."
    estimated = f"By estimate a step of {part} samples takes {size(estimate)}, and {size(free)} can be had. "
    return OutOfMemory(
        error.what,
        estimated + advice,
        **error.metadata,
        estimated_bytes=estimate,
        limit_bytes=limit,
        free_bytes=free,
        **({} if fitting is None else {field: fitting}),
    )


def _at_peak(estimate: MemoryEstimate) -> int:
    """With what both passes make and drop again, beside what is kept: outputs before a nonlinearity, gradients."""
    return estimate.total + 2 * estimate.activations


def _free_bytes(device: torch.device, unknown: int) -> int:
    """Memory that could be had now; `unknown` where nobody can tell."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(device)[0]
    try:
        found = _AVAILABLE.search(_MEMORY_INFO.read_text(encoding="ascii"))
    except FileNotFoundError:
        return unknown
    return unknown if found is None else int(found[1]) * 1024
