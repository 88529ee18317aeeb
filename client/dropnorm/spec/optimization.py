"""How weights move: optimizer, learning-rate schedule, batches, clipping, and when to stop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from dropnorm.spec._base import Bool, Epochs, NonNegative, Positive, Problem, SpecModel
from dropnorm.spec.auto import AutoBatchSize, AutoLearningRate
from dropnorm.spec.averaging import SWA, Averaging
from dropnorm.spec.batch_sizes import BatchSize, BatchSizeGrowth, BatchSizeSchedule, BatchSizeSteps
from dropnorm.spec.optimizers import Adam, Optimizer
from dropnorm.spec.schedules import (
    ConstantSchedule,
    CosineRestartsSchedule,
    CosineSchedule,
    MultiStepSchedule,
    PolynomialSchedule,
    Schedule,
    StepSchedule,
    Warmup,
)


class GradientClipping(SpecModel):
    """Gradients are kept within limits, first each value, then the norm over all parameters (Pascanu et al. 2013).

    The two networks of a GAN have a norm each. At least one of the two limits is given.
    """

    max_norm: Positive | None = None
    """Largest 2-norm of the gradient, above 0, beyond which all of it is scaled down; 1 is common; absent: no limit."""
    max_value: Positive | None = None
    """Largest size of each value of the gradient, above 0, beyond which that value is cut off; absent: no limit."""

    def _rules(self) -> Iterator[Problem]:
        if self.max_norm is None and self.max_value is None:
            yield Problem("max_norm", "give max_norm, max_value or both; a max_norm of 1 is common")


class EarlyStopping(SpecModel):
    """Training ends when the selection metric has not improved for a number of epochs."""

    patience: Epochs = 5
    """Epochs without improvement before training ends."""
    min_delta: NonNegative = 0.0
    """A change of the metric by more than this counts as an improvement, in the metric's own unit, 0 or more."""


class Optimization(SpecModel):
    """Everything that decides how weights move, and for how long."""

    optimizer: Optimizer = Adam()
    """The optimizer."""
    decay_biases_and_norms: Bool = False
    """Let the optimizer's weight decay act on biases and on the scales and shifts of norms as well, all that has one
    dimension, and not on weights alone."""
    auto_learning_rate: AutoLearningRate | None = None
    """Find the optimizer's learning rate before training; absent: it is the optimizer's `lr`."""
    schedule: Schedule = ConstantSchedule()
    """The learning-rate schedule, as a factor on the optimizer's rate."""
    warmup: Warmup | None = None
    """A linear warm-up on top of the schedule; absent: none."""
    epochs: Epochs = 20
    """Passes over the training split, 1 to 100,000."""
    batch_size: BatchSize = 128
    """Samples per step, 1 to 1,048,576; a split smaller than this is one batch."""
    auto_batch_size: AutoBatchSize | None = None
    """Find the largest batch size that fits into memory; absent: it is `batch_size`."""
    batch_size_schedule: BatchSizeSchedule | None = None
    """Other batch sizes later in training; absent: `batch_size` throughout."""
    micro_batch_size: BatchSize | None = None
    """Gradient accumulation: a batch is computed in equal parts of at most so many samples, 1 to 1,048,576, and one
    step is taken with the mean gradient over all of its samples, or over all of its tokens where these are told. It
    takes less memory for the same step, but that batch norm normalises each part by itself and that random numbers, of
    dropout or masked tokens, are drawn part by part; absent: a batch is computed at once."""
    last_batch: Literal["keep", "drop"] = "keep"
    """What happens to a last batch that is not full: it is trained on as it is, or left out of that epoch."""
    gradient_clipping: GradientClipping | None = None
    """Limits of the gradient's norm and values; absent: none."""
    averaging: Averaging | None = None
    """An average of the weights over the training. Where there is one, validation, selection and test use it, and it
    is what the model is in the end; `train_loss` is that of the weights in training; absent: none."""
    early_stopping: EarlyStopping | None = None
    """Stop when validation no longer improves; absent: never."""

    def _rules(self) -> Iterator[Problem]:
        yield from self._milestones()
        yield from self._batch_sizes()
        yield from self._start_of_average()
        schedule = self.schedule
        if isinstance(schedule, StepSchedule) and schedule.step_size >= self.epochs:
            yield Problem(
                "schedule.step.step_size",
                f"the first step would come after {schedule.step_size} epochs, and training ends after "
                f"{self.epochs}; give a smaller step_size, more epochs, or a constant schedule",
            )
        if (
            isinstance(schedule, CosineSchedule | PolynomialSchedule)
            and (schedule.epochs or 0) > self.epochs
        ):
            yield Problem(
                f"schedule.{schedule.kind}.epochs",
                f"the schedule runs for {schedule.epochs} epochs and training for {self.epochs}; "
                "leave it out to use all of the training",
            )
        if isinstance(schedule, CosineRestartsSchedule) and schedule.first_epochs >= self.epochs:
            yield Problem(
                "schedule.cosine_restarts.first_epochs",
                f"the first restart would come after {schedule.first_epochs} epochs, and training ends after "
                f"{self.epochs}; give fewer first_epochs, more epochs, or a cosine schedule",
            )
        if self.warmup is not None and self.warmup.epochs >= self.epochs:
            yield Problem(
                "warmup.epochs",
                f"a warm-up of {self.warmup.epochs:g} epochs leaves nothing of the {self.epochs} epochs of training; "
                "shorten it or train longer",
            )

    def _start_of_average(self) -> Iterator[Problem]:
        averaging = self.averaging
        if isinstance(averaging, SWA) and (averaging.start_epoch or 1) > self.epochs:
            yield Problem(
                "averaging.swa.start_epoch",
                f"averaging would begin with epoch {averaging.start_epoch}, and training ends after {self.epochs}; "
                "give an earlier start_epoch or more epochs",
            )

    def _batch_sizes(self) -> Iterator[Problem]:
        schedule = self.batch_size_schedule
        if self.auto_batch_size is not None and schedule is not None:
            yield Problem(
                "auto_batch_size",
                "batches cannot be as large as memory allows and follow a schedule; leave auto_batch_size or "
                "batch_size_schedule out",
            )
        if self.auto_batch_size is not None and self.micro_batch_size is not None:
            yield Problem(
                "auto_batch_size",
                f"a batch is computed in parts of {self.micro_batch_size} samples, so that memory sets no limit to it; "
                "leave auto_batch_size or micro_batch_size out",
            )
        if isinstance(schedule, BatchSizeGrowth) and (schedule.max_size or 2**20) < self.batch_size:
            yield Problem(
                "batch_size_schedule.growth.max_size",
                f"batches begin with {self.batch_size} samples; give a max_size of at least that",
            )

    def _milestones(self) -> Iterator[Problem]:
        """Changes that would come when training is over."""
        schedules = {"schedule": self.schedule, "batch_size_schedule": self.batch_size_schedule}
        for name, schedule in schedules.items():
            if isinstance(schedule, MultiStepSchedule | BatchSizeSteps | BatchSizeGrowth):
                last = schedule.milestones[-1]
                if last >= self.epochs:
                    yield Problem(
                        f"{name}.{schedule.kind}.milestones",
                        f"the last change would come after {last} epochs, and training ends after {self.epochs}; "
                        "give earlier milestones or more epochs",
                    )
