"""Lints about the training: its batches, its schedule, its memory."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, log

from dropnorm.results import Lint
from dropnorm.spec import CosineSchedule, OneCycleSchedule, StepSchedule
from dropnorm_service.training.lints.subject import Subject

_NEGLIGIBLE = 1e-6
_NEARLY_FULL = 0.8


def last_batch_of_one(subject: Subject) -> Iterator[Lint]:
    """An epoch that ends with a step on one sample."""
    batching = subject.batching
    if batching.last_batch_size == 1 < batching.batch_size:
        yield Lint(
            code="LAST_BATCH_OF_ONE",
            field="optimization.last_batch",
            message=f"{batching.samples} training samples in batches of {batching.batch_size} leave a last batch of "
            "one, whose step is noisy and counts as much as any other; set last_batch to drop, or give another "
            "batch_size",
        )


def batch_exceeds_split(subject: Subject) -> Iterator[Lint]:
    """A batch size that the training split cannot fill."""
    asked = subject.training.optimization.batch_size
    if asked > subject.batching.samples:
        yield Lint(
            code="BATCH_EXCEEDS_SPLIT",
            field="optimization.batch_size",
            message=f"the training split has {subject.batching.samples} samples, fewer than a batch of {asked}, so "
            "every epoch is a single step; give a smaller batch_size",
        )


def schedule_ends_early(subject: Subject) -> Iterator[Lint]:
    """A schedule that is over, or all but zero, before the training is."""
    optimization = subject.training.optimization
    schedule, epochs = optimization.schedule, optimization.epochs
    if isinstance(schedule, CosineSchedule) and schedule.epochs and schedule.epochs < epochs:
        yield Lint(
            code="SCHEDULE_ENDS_EARLY",
            field="optimization.schedule.cosine.epochs",
            message=f"the descent ends after {schedule.epochs} of {epochs} epochs, and the rest is trained at "
            f"{schedule.final_factor:g} times the learning rate; leave epochs out to use all of them",
        )
    if isinstance(schedule, StepSchedule) and schedule.gamma < 1.0:
        # A logarithm that should be a whole number may come out a little above it.
        end = ceil(log(_NEGLIGIBLE) / log(schedule.gamma) - 1e-9) * schedule.step_size
        if end < epochs:
            yield Lint(
                code="SCHEDULE_ENDS_EARLY",
                field="optimization.schedule.step.step_size",
                message=f"after {end} of {epochs} epochs the learning rate is a millionth of what it was, and nothing "
                "moves any more; give a larger step_size or gamma, or fewer epochs",
            )


def second_warmup(subject: Subject) -> Iterator[Lint]:
    """A warm-up on a schedule that begins with one."""
    optimization = subject.training.optimization
    if optimization.warmup and isinstance(optimization.schedule, OneCycleSchedule):
        yield Lint(
            code="WARMUP_ON_ONE_CYCLE",
            field="optimization.warmup",
            message="a one-cycle schedule begins with a rise of its own, and the two multiply; leave the warm-up out",
        )


def idle_early_stopping(subject: Subject) -> Iterator[Lint]:
    """Patience that outlasts the training."""
    optimization = subject.training.optimization
    stopping = optimization.early_stopping
    # The first epoch is always an improvement, so the wait begins with the second.
    if stopping and stopping.patience >= optimization.epochs - 1:
        yield Lint(
            code="EARLY_STOPPING_WITHOUT_EFFECT",
            field="optimization.early_stopping.patience",
            message=f"a patience of {stopping.patience} cannot run out before the last of {optimization.epochs} "
            "epochs; give less patience or more epochs",
        )


def unused_gpus(subject: Subject) -> Iterator[Lint]:
    """More GPUs than a training uses."""
    gpus = subject.training.compute.gpus or 0
    if gpus > 1:
        yield Lint(
            code="UNUSED_GPUS",
            field="compute.gpus",
            message=f"the job would hold {gpus} GPUs and train on one of them; ask for one",
        )


def nearly_full(subject: Subject) -> Iterator[Lint]:
    """A memory estimate close to the limit."""
    limit, total = subject.memory_limit, subject.memory.total
    if limit is not None and total > _NEARLY_FULL * limit:
        yield Lint(
            code="MEMORY",
            field="optimization.batch_size",
            message=f"a training step takes about {total / limit:.0%} of the device's memory, and the estimate leaves "
            "out what the device itself needs; a smaller batch_size makes room",
        )
