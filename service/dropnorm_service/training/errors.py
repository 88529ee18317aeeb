"""Why a training ended without a result: its own faults, which a second attempt would meet again.

    TrainingError
     +- Diverged       a loss or a gradient is no longer a finite number
     +- OutOfMemory    the device has no memory left
     +- BadData        the data cannot be read, or is not what it should be
     +- TimeLimit      the training has taken as long as it may
     +- ResultTooLarge its evaluation is larger than the service passes on

A `DeviceError` is none of them: another attempt, on another device, may succeed. A spec that does not fit its data is
no TrainingError but `dropnorm.spec.InvalidSpecError`, which names the fields.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from dropnorm_service.training.device import used_memory_bytes, was_short_of_memory

# Torch gives the figure in its text alone, differently for each device.
_ASKED = re.compile(r"tried to allocate ([\d.]+ \w+)", re.IGNORECASE)
# The CPU's allocator, and CUDA's libraries, raise a bare RuntimeError, so their texts are the only mark they have.
_NO_MEMORY = re.compile(
    r"DefaultCPUAllocator: can't allocate memory|CUDA error: out of memory|_STATUS_ALLOC_FAILED"
)
# oneDNN, which computes convolutions and recurrent layers on a CPU, says no more whatever it failed of.
_ONEDNN_FAILED = re.compile(r"could not (create|execute) a primitive")
# What a kernel's own mistakes look like: those are bugs, which another device would meet as well.
_OUR_MISTAKE = re.compile(r"device-side assert|invalid (argument|configuration|device function)")
_DEVICE_FAILED = re.compile(r"_STATUS_(EXECUTION_FAILED|INTERNAL_ERROR|MAPPING_ERROR)")

_DEADLINE_EXCEEDED = 4
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


@dataclass(frozen=True)
class Origin:
    """Where numbers first ceased to be finite.

    Attributes:
        layer: name of the layer, as the plan has it.
        what: of it: its output, its gradient or its weights.
        step: the optimizer step, from 1.
    """

    layer: str
    what: Literal["output", "gradient", "weights"]
    step: int

    def __str__(self) -> str:
        return f"the {self.what} of {self.layer} at step {self.step}"

    def metadata(self) -> dict[str, object]:
        """The same by name."""
        return {"layer": self.layer, "layer_value": self.what, "layer_step": self.step}


class Diverged(TrainingError):
    """A number that training steers by is no longer finite."""

    reason = "DIVERGED"
    code = _FAILED_PRECONDITION

    def __init__(
        self, *, step: int, metric: str, value: float, origin: Origin | None = None
    ) -> None:
        """`step` counts optimizer steps from 1; `metric` names the number, `train_loss`."""
        began = f" It began in {origin}." if origin else ""
        found = {} if origin is None else origin.metadata()
        super().__init__(
            f"{metric} became {value} by step {step}: the training diverged.{began} Lower the learning "
            "rate, add a warm-up or gradient clipping, or check the scale of the data.",
            step=step,
            metric=metric,
            value=value,
            **found,
        )
        self.step, self.metric, self.value = step, metric, value


class OutOfMemory(TrainingError):
    """The device has no memory left for the model, its data or a step."""

    reason = "OUT_OF_MEMORY"
    code = _RESOURCE_EXHAUSTED
    advice = "Give a smaller batch_size or a smaller network; Plan estimates what a spec needs."
    """What to do where no more is known than that memory ran out."""

    def __init__(self, what: str, advice: str = advice, **metadata: object) -> None:
        """`what` happened, and what to do, a sentence each."""
        super().__init__(f"{what} {advice}", **metadata)
        self.what = what


class BadData(TrainingError):
    """The data cannot be read, or is not what it should be."""

    reason = "BAD_DATA"
    code = _FAILED_PRECONDITION


class TimeLimit(TrainingError):
    """The training has taken as long as it may, over all attempts; its last checkpoint is written."""

    reason = "TIME_LIMIT"
    code = _DEADLINE_EXCEEDED

    def __init__(self, limit: float, *, step: int | None = None) -> None:
        """`step` counts the optimizer steps that are done; None: the data was read, or the network made."""
        where = "while it was made ready" if step is None else f"at step {step}"
        super().__init__(
            f"The training reached its limit of {limit:g} seconds {where}; its checkpoint and its history so "
            "far are kept. Give a larger compute.time_limit, or ask for fewer epochs.",
            time_limit=f"{limit:g}",
            **({} if step is None else {"step": step}),
        )


class ResultTooLarge(TrainingError):
    """An evaluation is larger than the service passes on; the journal has the epochs."""

    reason = "RESULT_TOO_LARGE"
    code = _RESOURCE_EXHAUSTED

    def __init__(self, size: int, limit: int) -> None:
        """`size` of the evaluation and `limit`, in bytes."""
        super().__init__(
            f"The evaluation takes {size:,} bytes, and {limit:,} are passed on; its history is kept in the job's "
            "events. Ask for fewer epochs.",
            size_bytes=size,
            limit_bytes=limit,
        )


class DeviceError(Exception):
    """The device failed: no fault of the training."""


@contextmanager
def device_reported() -> Iterator[None]:
    """Turn what torch raises when a device fails into `DeviceError`.

    Raises:
        DeviceError: with what the driver says, one line.
    """
    try:
        yield
    except RuntimeError as error:
        if not _is_device_error(error):
            raise
        raise DeviceError(str(error).partition("\n")[0].rstrip(".")) from error


def _is_device_error(error: RuntimeError) -> bool:
    text = str(error)
    if isinstance(error, torch.AcceleratorError):
        return _OUR_MISTAKE.search(text) is None
    return _DEVICE_FAILED.search(text) is not None


@contextmanager
def memory_reported(device: torch.device) -> Iterator[None]:
    """Turn the several forms in which torch says that memory ran out into `OutOfMemory`.

    Raises:
        OutOfMemory: an allocation inside the block failed.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        asked = _ASKED.search(str(error))
        wanted = f" when {asked[1]} more were asked for" if asked else ""
        raise OutOfMemory(
            f"{device} has no memory left{wanted}.",
            device=device,
            used_bytes=used_memory_bytes(device),
            **({"asked_for": asked[1]} if asked else {}),
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is one of the forms in which torch, or the system, says that memory ran out."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    text = str(error)
    return (
        isinstance(error, torch.OutOfMemoryError | MemoryError)
        or _NO_MEMORY.search(text) is not None
        or (_ONEDNN_FAILED.search(text) is not None and was_short_of_memory())
    )
