"""How weights move: optimizer, learning-rate schedule, batches, clipping, and when to stop.

A schedule is a pure function of the step: `lr(step) = optimizer.lr * warmup(step) * schedule(step)`. So it needs no
state, and a resumed job cannot disagree with an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from dropnorm.spec._base import (
    Bool,
    Epochs,
    Float,
    NonNegative,
    Positive,
    Problem,
    Share,
    SpecModel,
)

Beta = Annotated[Float, Field(ge=0.0, lt=1.0)]
LearningRate = Annotated[Float, Field(gt=0.0, le=1000.0)]


class SGD(SpecModel):
    """Stochastic gradient descent, with momentum or Nesterov's form of it (Sutskever et al. 2013)."""

    kind: Literal["sgd"] = "sgd"
    lr: LearningRate = 0.1
    """Learning rate, above 0 to 1000."""
    momentum: Beta = 0.0
    """Share of the last step carried on, 0 to below 1."""
    nesterov: Bool = False
    """Look ahead along the momentum; needs a momentum above 0."""
    weight_decay: NonNegative = 0.0
    """L2 penalty added to the gradient, 0 or more."""

    def _rules(self) -> Iterator[Problem]:
        if self.nesterov and self.momentum == 0.0:
            yield Problem(
                "nesterov", "Nesterov's step needs momentum; give a momentum above 0, 0.9 is common"
            )


class Adam(SpecModel):
    """Adam (Kingma & Ba 2014)."""

    kind: Literal["adam"] = "adam"
    lr: LearningRate = 1e-3
    """Learning rate, above 0 to 1000."""
    beta1: Beta = 0.9
    """Decay of the mean of the gradient, 0 to below 1."""
    beta2: Beta = 0.999
    """Decay of the mean of its square, 0 to below 1."""
    eps: Positive = 1e-8
    """Added to the denominator, above 0."""
    weight_decay: NonNegative = 0.0
    """L2 penalty added to the gradient, 0 or more."""


class AdamW(SpecModel):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2017)."""

    kind: Literal["adamw"] = "adamw"
    lr: LearningRate = 1e-3
    """Learning rate, above 0 to 1000."""
    beta1: Beta = 0.9
    """Decay of the mean of the gradient, 0 to below 1."""
    beta2: Beta = 0.999
    """Decay of the mean of its square, 0 to below 1."""
    eps: Positive = 1e-8
    """Added to the denominator, above 0."""
    weight_decay: NonNegative = 0.01
    """Share of each weight taken off per step, times the learning rate, 0 or more."""


class RMSprop(SpecModel):
    """RMSprop (Hinton 2012, lecture 6e)."""

    kind: Literal["rmsprop"] = "rmsprop"
    lr: LearningRate = 1e-2
    """Learning rate, above 0 to 1000."""
    alpha: Beta = 0.99
    """Decay of the mean of the squared gradient, 0 to below 1."""
    eps: Positive = 1e-8
    """Added to the denominator, above 0."""
    momentum: Beta = 0.0
    """Share of the last step carried on, 0 to below 1."""
    weight_decay: NonNegative = 0.0
    """L2 penalty added to the gradient, 0 or more."""


Optimizer = Annotated[SGD | Adam | AdamW | RMSprop, Field(discriminator="kind")]


class ConstantSchedule(SpecModel):
    """The optimizer's learning rate throughout."""

    kind: Literal["constant"] = "constant"


class StepSchedule(SpecModel):
    """The rate is multiplied by `gamma` every `step_size` epochs."""

    kind: Literal["step"] = "step"
    step_size: Epochs
    """Epochs between two steps; must be below the number of epochs."""
    gamma: Annotated[Float, Field(gt=0.0, le=1.0)] = 0.1
    """Factor at each step, above 0 to 1."""


class CosineSchedule(SpecModel):
    """Half a cosine from the optimizer's rate down to `final_factor` times it (Loshchilov & Hutter 2016)."""

    kind: Literal["cosine"] = "cosine"
    epochs: Epochs | None = None
    """Length of the descent in epochs, at most the training's; absent: all of it."""
    final_factor: Share = 0.0
    """Share of the rate left at the end, 0 to below 1."""


class OneCycleSchedule(SpecModel):
    """Up to the optimizer's rate, then down to next to nothing, each along half a cosine (Smith & Topin 2017)."""

    kind: Literal["one_cycle"] = "one_cycle"
    rise: Annotated[Float, Field(gt=0.0, lt=1.0)] = 0.3
    """Share of all steps spent rising, above 0 to below 1."""
    start_factor: Annotated[Float, Field(gt=0.0, le=1.0)] = 0.04
    """Share of the rate at the first step, above 0 to 1."""
    final_factor: Share = 4e-6
    """Share of the rate at the last step, 0 to below 1."""


Schedule = Annotated[
    ConstantSchedule | StepSchedule | CosineSchedule | OneCycleSchedule, Field(discriminator="kind")
]


class Warmup(SpecModel):
    """A linear rise to the full rate at the start, on top of any schedule (Goyal et al. 2017)."""

    epochs: Annotated[Float, Field(gt=0.0, le=100_000.0)] = 1.0
    """Length in epochs, fractions allowed; must be below the number of epochs."""
    start_factor: Annotated[Float, Field(gt=0.0, le=1.0)] = 0.01
    """Share of the rate at the first step, above 0 to 1."""


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
