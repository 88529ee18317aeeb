"""How weights move: optimizer, learning-rate schedule, batches, clipping, and when to stop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from dropnorm.spec._base import Bool, Epochs, NonNegative, Positive, Problem, SpecModel
from dropnorm.spec.optimizers import Adam, Optimizer
from dropnorm.spec.schedules import (
    ConstantSchedule,
    CosineSchedule,
    Schedule,
    StepSchedule,
    Warmup,
)


class GradientClipping(SpecModel):
    """Gradients are scaled down so that their norm over all parameters stays within a limit (Pascanu et al. 2013)."""

    max_norm: Positive = 1.0
    """Largest 2-norm of the gradient, above 0."""


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
    schedule: Schedule = ConstantSchedule()
    """The learning-rate schedule, as a factor on the optimizer's rate."""
    warmup: Warmup | None = None
    """A linear warm-up on top of the schedule; absent: none."""
    epochs: Epochs = 20
    """Passes over the training split, 1 to 100,000."""
    batch_size: Annotated[int, Field(ge=1, le=2**20, strict=True)] = 128
    """Samples per step, 1 to 1,048,576; a split smaller than this is one batch."""
    last_batch: Literal["keep", "drop"] = "keep"
    """What happens to a last batch that is not full: it is trained on as it is, or left out of that epoch."""
    gradient_clipping: GradientClipping | None = None
    """Clipping of the gradient's norm; absent: none."""
    early_stopping: EarlyStopping | None = None
    """Stop when validation no longer improves; absent: never."""

    def _rules(self) -> Iterator[Problem]:
        schedule = self.schedule
        if isinstance(schedule, StepSchedule) and schedule.step_size >= self.epochs:
            yield Problem(
                "schedule.step.step_size",
                f"the first step would come after {schedule.step_size} epochs, and training ends after "
                f"{self.epochs}; give a smaller step_size, more epochs, or a constant schedule",
            )
        if isinstance(schedule, CosineSchedule) and (schedule.epochs or 0) > self.epochs:
            yield Problem(
                "schedule.cosine.epochs",
                f"the schedule runs for {schedule.epochs} epochs and training for {self.epochs}; "
                "leave it out to use all of the training",
            )
        if self.warmup is not None and self.warmup.epochs >= self.epochs:
            yield Problem(
                "warmup.epochs",
                f"a warm-up of {self.warmup.epochs:g} epochs leaves nothing of the {self.epochs} epochs of training; "
                "shorten it or train longer",
            )
