"""Lints about the training: its batches, its end, its memory."""

from __future__ import annotations

from collections.abc import Iterator

from dropnorm.results import Lint
from dropnorm.spec import SWA
from dropnorm.spec.layers import BatchNorm
from dropnorm_service.training.averaging import first_averaged
from dropnorm_service.training.lints.subject import Subject
from dropnorm_service.training.timetable import batch_sizes, largest_part

_NEARLY_FULL = 0.8


def last_batch_of_one(subject: Subject) -> Iterator[Lint]:
    """An epoch that ends with a step on one sample."""
    for batching in subject.timetable.batchings:
        if batching.last_batch_size == 1 < batching.batch_size:
            yield Lint(
                code="LAST_BATCH_OF_ONE",
                field="optimization.last_batch",
                message=f"{batching.samples} training samples in batches of {batching.batch_size} leave a last batch "
                "of one, whose step is noisy and counts as much as any other; set last_batch to drop, or give another "
                "batch_size",
            )
            return


def batch_exceeds_split(subject: Subject) -> Iterator[Lint]:
    """A batch size that the training split cannot fill."""
    optimization, samples = subject.training.optimization, subject.dataset.train_samples
    schedule = optimization.batch_size_schedule
    sizes = batch_sizes(optimization.batch_size, schedule)
    for epoch, asked in sizes.items():
        if asked > samples:
            field, when = "batch_size", ""
            if schedule and epoch > 1:
                field = f"batch_size_schedule.{schedule.kind}.milestones"
                when = f"from epoch {epoch} on "
            yield Lint(
                code="BATCH_EXCEEDS_SPLIT",
                field=f"optimization.{field}",
                message=f"the training split has {samples} samples, fewer than a batch of {asked}, so "
                f"{when}every epoch is a single step; give smaller batches",
            )
            return


def idle_accumulation(subject: Subject) -> Iterator[Lint]:
    """Parts of a batch that are never smaller than the batch."""
    micro = subject.training.optimization.micro_batch_size
    largest = max(batching.batch_size for batching in subject.timetable.batchings)
    if micro is not None and micro >= largest:
        yield Lint(
            code="ACCUMULATION_WITHOUT_EFFECT",
            field="optimization.micro_batch_size",
            message=f"no batch has more than {largest} samples, so each is computed at once; give fewer, or leave it "
            "out",
        )


def norm_of_parts(subject: Subject) -> Iterator[Lint]:
    """Batch norm over parts of a batch."""
    optimization, timetable = subject.training.optimization, subject.timetable
    part = largest_part(optimization, timetable)
    norms = any(isinstance(layer.element.layer, BatchNorm) for layer in subject.paper.walk())
    if norms and part < max(batching.batch_size for batching in timetable.batchings):
        yield Lint(
            code="BATCH_NORM_OVER_PARTS",
            field="optimization.micro_batch_size",
            message=f"batch norm normalises each part of a batch, at most {part} samples, by itself, so this is not "
            "the training that whole batches would give; a norm that does not look at the batch makes them equal",
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


def idle_averaging(subject: Subject) -> Iterator[Lint]:
    """A mean of one epoch's weights, or one that early stopping may come before."""
    optimization = subject.training.optimization
    averaging, stopping = optimization.averaging, optimization.early_stopping
    if not isinstance(averaging, SWA):
        return
    field = "optimization.averaging.swa.start_epoch"
    start = first_averaged(averaging, optimization.epochs)
    if start == optimization.epochs:
        yield Lint(
            code="AVERAGING_WITHOUT_EFFECT",
            field=field,
            message="the last epoch alone would count, and the mean of one is itself; begin earlier or train longer",
        )
    elif stopping and stopping.patience + 1 < start:
        yield Lint(
            code="AVERAGING_MAY_NOT_BEGIN",
            field=field,
            message=f"averaging begins with epoch {start}, and early stopping may end the training before; begin "
            "earlier or give more patience",
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
