"""A training from its start to its result, or to an error that says what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch

from dropnorm.spec import Compute, TrainingSpec
from dropnorm_service.training.auto import with_batch_size
from dropnorm_service.training.checkpoint import Checkpoints
from dropnorm_service.training.data import SplitData
from dropnorm_service.training.design import Design
from dropnorm_service.training.device import arithmetic, memory_bytes
from dropnorm_service.training.divergence import origin_of
from dropnorm_service.training.errors import Diverged, OutOfMemory, memory_reported
from dropnorm_service.training.exhaustion import advised
from dropnorm_service.training.judging import FitResult
from dropnorm_service.training.loop import Training
from dropnorm_service.training.reporting import (
    EventSink,
    Listened,
    Order,
    Orders,
    Resumed,
    go_on,
    ignore,
    uncounted,
)
from dropnorm_service.training.step import compilation


def fit(
    spec: TrainingSpec,
    data: SplitData,
    *,
    on_event: EventSink = ignore,
    orders: Orders = go_on,
    checkpoint: Checkpoints | None = None,
    memory_limit_bytes: int | None = None,
    time_limit: float | None = None,
    on_resumed: Callable[[Resumed], object] = ignore,
    on_uncounted_step: Callable[[], None] = uncounted,
) -> FitResult:
    """Train a network and evaluate it.

    A training that finds a checkpoint goes on from there, and ends with the very numbers, bit for
    bit, that it would have had without the stop (times aside; on the same kind of device).

    Args:
        spec: what to train. Initial weights and dropout are drawn from torch's global generators,
            seeded with the spec's seed and left afterwards as they were before.
        data: its data, on the device to train on.
        on_event: takes progress, epochs, checkpoints and warnings as they happen.
        orders: asked between steps, in training and evaluation alike.
        checkpoint: where to write checkpoints, and to look for one first; None: nowhere.
        memory_limit_bytes: memory that the training can count on; None: the device's.
        time_limit: seconds that it may take, with those before the checkpoint that it goes on from; None: any time.
        on_resumed: told where the training goes on, when it finds a checkpoint.
        on_uncounted_step: called after steps that no progress counts, of a range test, of the network that a GAN is
            measured by, and of the search for the layer that diverged first: it comes further all the same.

    Raises:
        InvalidSpecError: the spec does not fit its data, or asks for what the device cannot do.
        Interrupted: `orders` said pause or cancel; a checkpoint is written, if there is a place.
        Diverged: a loss is no longer finite; the layer that went wrong first is named, where it can be found and
            `orders` did not say pause or cancel.
        OutOfMemory: the device has no memory left; what would fit is named.
        BadData: the checkpoint belongs to other data.
        TimeLimit: the time is over; a checkpoint is written, if there is a place.
    """
    memory = memory_limit_bytes or memory_bytes(data.device)
    fitted, paper = with_batch_size(spec, data.summary, memory)
    size = fitted.optimization.batch_size if spec.optimization.auto_batch_size else None
    start = partial(Training, spec, data, paper, size, on_uncounted_step=on_uncounted_step)
    listened = Listened(orders)
    try:
        with _surroundings(spec.compute, data.device):
            return _run(
                lambda: start(on_event, listened, checkpoint, time_limit, on_resumed),
                [partial(start, ignore, checkpoint=each) for each in _starts(checkpoint)],
                paper,
                listened,
                on_uncounted_step,
            )
    except OutOfMemory as error:
        # Without what its traces hold: all that the training has in memory.
        failed = OutOfMemory(error.what, **error.metadata)
    raise advised(failed, fitted, paper, data.summary, data.device, memory)


def _run(
    first: Callable[[], Training],
    again: Sequence[Callable[[Orders], Training]],
    paper: Design,
    orders: Listened,
    on_uncounted_step: Callable[[], None],
) -> FitResult:
    """Run a training; one that diverges is run again to see where, unless it was told to stop."""

    def between_steps() -> Order:
        on_uncounted_step()
        return orders()

    try:
        return first().run()
    except Diverged as error:
        diverged = error.with_traceback(None)  # which holds all that the training has in memory
    origin = None if orders.stop else origin_of(again, diverged, paper, between_steps)
    raise Diverged(step=diverged.step, metric=diverged.metric, value=diverged.value, origin=origin)


def _starts(checkpoint: Checkpoints | None) -> list[Checkpoints | None]:
    """Where a training can begin, from the newest checkpoint to none."""
    if checkpoint is None:
        return [None]
    return [checkpoint.only_read(), checkpoint.only_read(passed_over=1), None]


@contextmanager
def _surroundings(compute: Compute, device: torch.device) -> Iterator[None]:
    with (
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        arithmetic(compute),
        compilation(compute),
        memory_reported(device),
    ):
        yield
