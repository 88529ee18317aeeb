"""Lints about schedules: of the learning rate and of the batch size."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, log

from dropnorm.results import Lint
from dropnorm.spec import (
    CosineSchedule,
    ExponentialSchedule,
    InverseSqrtSchedule,
    MultiStepSchedule,
    OneCycleSchedule,
    PlateauSchedule,
    PolynomialSchedule,
    StepSchedule,
)
from dropnorm_service.training.lints.subject import Subject

_NEGLIGIBLE = 1e-6


def schedule_ends_early(subject: Subject) -> Iterator[Lint]:
    """A schedule that is over, or all but zero, before the training is."""
    optimization = subject.training.optimization
    schedule, epochs = optimization.schedule, optimization.epochs
    if (
        isinstance(schedule, CosineSchedule | PolynomialSchedule)
        and schedule.epochs
        and schedule.epochs < epochs
    ):
        yield Lint(
            code="SCHEDULE_ENDS_EARLY",
            field=f"optimization.schedule.{schedule.kind}.epochs",
            message=f"the descent ends after {schedule.epochs} of {epochs} epochs, and the rest is trained at "
            f"{schedule.final_factor:g} times the learning rate; leave epochs out to use all of them",
        )
    if isinstance(schedule, StepSchedule | ExponentialSchedule) and schedule.gamma < 1.0:
        every, field = 1, "gamma"
        if isinstance(schedule, StepSchedule):
            every, field = schedule.step_size, "step_size"
        # A logarithm that should be a whole number may come out a little above it.
        end = ceil(log(_NEGLIGIBLE) / log(schedule.gamma) - 1e-9) * every
        if end < epochs:
            yield Lint(
                code="SCHEDULE_ENDS_EARLY",
                field=f"optimization.schedule.{schedule.kind}.{field}",
                message=f"after {end} of {epochs} epochs the learning rate is a millionth of what it was, and nothing "
                f"moves any more; give a larger {field}{' or gamma' * (every > 1)}, or fewer epochs",
            )


def idle_schedule(subject: Subject) -> Iterator[Lint]:
    """A schedule that never changes the learning rate."""
    optimization = subject.training.optimization
    schedule, stopping = optimization.schedule, optimization.early_stopping
    field = f"optimization.schedule.{schedule.kind}"
    if optimization.warmup and optimization.warmup.start_factor == 1.0:
        yield Lint(
            code="SCHEDULE_WITHOUT_EFFECT",
            field="optimization.warmup.start_factor",
            message="a warm-up that starts at the full rate does not rise; give a smaller start_factor, or leave the "
            "warm-up out",
        )
    stepped = StepSchedule | MultiStepSchedule | ExponentialSchedule | PlateauSchedule
    if isinstance(schedule, stepped) and schedule.gamma == 1.0:
        text = "a gamma of 1 leaves the learning rate as it is; give a smaller one, or a constant schedule"
        yield Lint(code="SCHEDULE_WITHOUT_EFFECT", field=f"{field}.gamma", message=text)
    elif isinstance(schedule, ExponentialSchedule) and optimization.epochs == 1:
        text = "the rate falls after each epoch, and there is a single one; train longer, or take a constant schedule"
        yield Lint(code="SCHEDULE_WITHOUT_EFFECT", field=field, message=text)
    if not isinstance(schedule, PlateauSchedule):
        return
    # The first epoch is always an improvement, and a step after the last one would move nothing.
    if schedule.patience >= optimization.epochs - 1:
        yield Lint(
            code="SCHEDULE_WITHOUT_EFFECT",
            field=f"{field}.patience",
            message=f"a patience of {schedule.patience} cannot run out before the last of {optimization.epochs} "
            "epochs; give less patience or more epochs",
        )
    elif stopping and stopping.patience <= schedule.patience:
        yield Lint(
            code="SCHEDULE_WITHOUT_EFFECT",
            field=f"{field}.patience",
            message=f"early stopping ends the training after {stopping.patience} epochs without improvement, when the "
            f"learning rate has waited {schedule.patience} or not yet fallen; give early_stopping more patience",
        )


def idle_batch_size_schedule(subject: Subject) -> Iterator[Lint]:
    """A batch-size schedule that never changes how an epoch is cut."""
    schedule = subject.training.optimization.batch_size_schedule
    if schedule is not None and len(subject.timetable.stretches) == 1:
        (batching,) = subject.timetable.batchings
        yield Lint(
            code="BATCH_SIZE_SCHEDULE_WITHOUT_EFFECT",
            field=f"optimization.batch_size_schedule.{schedule.kind}",
            message=f"every epoch is cut into batches of {batching.batch_size} of its {batching.samples} samples all "
            "the same; give other sizes, or leave it out",
        )


def second_warmup(subject: Subject) -> Iterator[Lint]:
    """A warm-up on a schedule that begins with one."""
    optimization = subject.training.optimization
    rises = {OneCycleSchedule: "WARMUP_ON_ONE_CYCLE", InverseSqrtSchedule: "WARMUP_ON_INVERSE_SQRT"}
    code = rises.get(type(optimization.schedule))
    if optimization.warmup and code:
        kind = optimization.schedule.kind
        yield Lint(
            code=code,
            field="optimization.warmup",
            message=f"a schedule of kind {kind} begins with a rise of its own, and the two multiply; leave the warm-up "
            "out",
        )


def unfinished_warmup(subject: Subject) -> Iterator[Lint]:
    """A rise that is as long as the training."""
    schedule, steps = subject.training.optimization.schedule, subject.timetable.steps
    if isinstance(schedule, InverseSqrtSchedule) and schedule.warmup_steps >= steps:
        yield Lint(
            code="WARMUP_OUTLASTS_TRAINING",
            field="optimization.schedule.inverse_sqrt.warmup_steps",
            message=f"training has {steps} steps, and the learning rate rises for {schedule.warmup_steps}: it never "
            "falls; give fewer warmup_steps, a tenth of the training is common, or train longer",
        )
