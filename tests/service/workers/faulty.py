"""Trainings that go wrong, each in its way, in real workers: loaded by the fork server, chosen by the spec's seed."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable
from enum import IntEnum
from typing import Any, NoReturn

import torch

from dropnorm.results import EpochCompleted, Payload
from dropnorm_service.training import FitResult, Order
from dropnorm_service.training import fit as really_fit
from dropnorm_service.workers.child import link, worker


class Fault(IntEnum):
    """Seeds of specs that go wrong."""

    KILLED = 9_001
    SEGMENTATION = 9_002
    BUS_ERROR = 9_003
    ECC = 9_004
    DEVICE_ASSERT = 9_005
    BUG = 9_006
    ENDLESS = 9_007
    NO_ROOM_FOR_THE_MODEL = 9_008
    FROZEN = 9_009
    UNCOUNTED = 9_010
    TALKATIVE = 9_011
    HURRIED = 9_012


def _killed_by(number: signal.Signals) -> Callable[..., None]:
    return lambda **_: os.kill(os.getpid(), number)


def _raising(error: Exception) -> Callable[..., NoReturn]:
    def fail(**_: Any) -> NoReturn:
        raise error

    return fail


def _endless(orders: Callable[[], Order], **_: Any) -> None:
    """Show signs of life, and come no further."""
    while orders() is Order.GO_ON:
        time.sleep(0.01)


def _uncounted(
    orders: Callable[[], Order], on_uncounted_step: Callable[[], None], **_: Any
) -> None:
    """Make many steps that no progress counts, and tell of them more often than others do."""
    link._HEARTBEAT_SECONDS = 0.01
    for _step in range(100):
        on_uncounted_step()
        orders()
        time.sleep(0.01)


def _talkative(**_: Any) -> None:
    """Whatever the evaluation says is too much."""
    worker.MAX_EVALUATION_BYTES = 1000


def _hurried(on_event: Callable[[Payload], None], **_: Any) -> dict[str, Any]:
    """After each epoch it is a quarter of an hour later."""
    clock = time.perf_counter
    late = 0.0

    def tell(payload: Payload) -> None:
        nonlocal late
        on_event(payload)
        if isinstance(payload, EpochCompleted):
            late += 900.0

    time.perf_counter = lambda: clock() + late
    return {"on_event": tell}


_FAULTS: dict[int, Callable[..., dict[str, Any] | None]] = {
    Fault.KILLED: _killed_by(signal.SIGKILL),
    Fault.SEGMENTATION: _killed_by(signal.SIGSEGV),
    Fault.BUS_ERROR: _killed_by(signal.SIGBUS),
    Fault.FROZEN: _killed_by(signal.SIGSTOP),
    Fault.ECC: _raising(
        torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered\nCompile with ...")
    ),
    Fault.DEVICE_ASSERT: _raising(
        torch.AcceleratorError("CUDA error: device-side assert triggered")
    ),
    Fault.BUG: _raising(KeyError("a bug")),
    Fault.ENDLESS: _endless,
    Fault.UNCOUNTED: _uncounted,
    Fault.TALKATIVE: _talkative,
    Fault.HURRIED: _hurried,
    Fault.NO_ROOM_FOR_THE_MODEL: _raising(OSError(errno.ENOSPC, "No space left on device")),
}


def fit(spec: Any, data: Any, **options: Any) -> FitResult:
    """What a worker calls, unless the seed says otherwise."""
    if fault := _FAULTS.get(spec.seed):
        options |= fault(**options) or {}
    return really_fit(spec, data, **options)


worker.fit = fit  # type: ignore[attr-defined]
