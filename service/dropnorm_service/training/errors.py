"""Why a training ended without a result: its own faults, which a second attempt would meet again.

    TrainingError
     +- Diverged       a loss or a gradient is no longer a finite number
     +- OutOfMemory    the device has no memory left
     +- BadData        the data cannot be read, or is not what it should be

A spec that does not fit its data is no TrainingError but `dropnorm.spec.InvalidSpecError`, which
names the fields.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import torch

# Torch gives the figure in its text alone, differently for each device.
_ASKED = re.compile(r"tried to allocate ([\d.]+ \w+)", re.IGNORECASE)

_RESOURCE_EXHAUSTED = 8
_FAILED_PRECONDITION = 9


class TrainingError(Exception):
    """A training cannot go on, through its own fault.

    Attributes:
        reason: what kind of failure, UPPER_SNAKE.
        code: canonical gRPC status code.
        message: what happened and what to do, one or two sentences.
        metadata: the values the message speaks of, by name.
    """

    reason: ClassVar[str]
    code: ClassVar[int]

    def __init__(self, message: str, **metadata: object) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = {name: str(value) for name, value in metadata.items()}


class Diverged(TrainingError):
    """A number that training steers by is no longer finite."""

    reason = "DIVERGED"
    code = _FAILED_PRECONDITION

    def __init__(self, *, step: int, metric: str, value: float) -> None:
        """`step` counts optimizer steps from 1; `metric` names the number, `train_loss`."""
        super().__init__(
            f"{metric} became {value} by step {step}: the training diverged. Lower the learning "
            "rate, add a warm-up or gradient clipping, or check the scale of the data.",
            step=step,
            metric=metric,
            value=value,
        )


class OutOfMemory(TrainingError):
    """The device has no memory left for the model, its data or a step."""

    reason = "OUT_OF_MEMORY"
    code = _RESOURCE_EXHAUSTED


class BadData(TrainingError):
    """The data cannot be read, or is not what it should be."""

    reason = "BAD_DATA"
    code = _FAILED_PRECONDITION


@contextmanager
def memory_reported(device: torch.device) -> Iterator[None]:
    """Turn the several forms in which torch says that memory ran out into `OutOfMemory`.

    Raises:
        OutOfMemory: an allocation inside the block failed.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        asked = _ASKED.search(str(error))
        wanted = f" when {asked[1]} more were asked for" if asked else ""
        raise OutOfMemory(
            f"{device} has no memory left{wanted}. Give a smaller batch_size or a smaller network; "
            "Plan estimates what a spec needs.",
            device=device,
            **({"asked_for": asked[1]} if asked else {}),
        ) from error


def _is_out_of_memory(error: BaseException) -> bool:
    # The CPU's allocator raises a bare RuntimeError, so its text is the only mark it has.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        "DefaultCPUAllocator: can't allocate memory" in str(error)
    )
