"""The learning rate over time: the kinds of schedule, and the warm-up on top of them.

A schedule is a factor on the optimizer's rate, `lr(step) = optimizer.lr * warmup(step) * schedule(step)`. All but
`plateau` are pure functions of the step: they need no state.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from dropnorm.spec._base import Epochs, Float, Int, NonNegative, Problem, Share, SpecModel

Gamma = Annotated[Float, Field(gt=0.0, le=1.0)]
Milestones = Annotated[tuple[Epochs, ...], Field(max_length=64)]


def milestone_rules(milestones: Milestones) -> Iterator[Problem]:
    """What is asked of milestones by themselves; whether training lasts so long is for their whole to say."""
    if not milestones:
        yield Problem("milestones", "give at least one epoch after which something changes")
    if any(later <= earlier for earlier, later in itertools.pairwise(milestones)):
        yield Problem("milestones", "give epochs in rising order, each once")


class ConstantSchedule(SpecModel):
    """The optimizer's learning rate throughout."""

    kind: Literal["constant"] = "constant"


class StepSchedule(SpecModel):
    """The rate is multiplied by `gamma` every `step_size` epochs."""

    kind: Literal["step"] = "step"
    step_size: Epochs
    """Epochs between two steps; must be below the number of epochs."""
    gamma: Gamma = 0.1
    """Factor at each step, above 0 to 1."""


class MultiStepSchedule(SpecModel):
    """The rate is multiplied by `gamma` after each of some epochs."""

    kind: Literal["multi_step"] = "multi_step"
    milestones: Milestones
    """Epochs done before each step, rising, at most 64; must be below the number of epochs."""
    gamma: Gamma = 0.1
    """Factor at each step, above 0 to 1."""

    def _rules(self) -> Iterator[Problem]:
        yield from milestone_rules(self.milestones)


class ExponentialSchedule(SpecModel):
    """The rate is multiplied by `gamma` after every epoch."""

    kind: Literal["exponential"] = "exponential"
    gamma: Gamma = 0.95
    """Factor after each epoch, above 0 to 1."""


class PolynomialSchedule(SpecModel):
    """From the optimizer's rate down to `final_factor` times it, along `(1 - share of the way)^power`."""

    kind: Literal["polynomial"] = "polynomial"
    power: Annotated[Float, Field(gt=0.0, le=100.0)] = 1.0
    """Exponent, above 0 to 100; 1 is a straight line."""
    epochs: Epochs | None = None
    """Length of the descent in epochs, at most the training's; absent: all of it."""
    final_factor: Share = 0.0
    """Share of the rate left at the end, 0 to below 1."""


class CosineSchedule(SpecModel):
    """Half a cosine from the optimizer's rate down to `final_factor` times it (Loshchilov & Hutter 2016)."""

    kind: Literal["cosine"] = "cosine"
    epochs: Epochs | None = None
    """Length of the descent in epochs, at most the training's; absent: all of it."""
    final_factor: Share = 0.0
    """Share of the rate left at the end, 0 to below 1."""


class CosineRestartsSchedule(SpecModel):
    """Half a cosine down, again and again from the full rate: SGDR (Loshchilov & Hutter 2016)."""

    kind: Literal["cosine_restarts"] = "cosine_restarts"
    first_epochs: Epochs
    """Length of the first descent in epochs; must be below the number of epochs."""
    growth: Annotated[Int, Field(ge=1, le=1000)] = 1
    """How many times as long each descent is as the one before, 1 to 1000."""
    final_factor: Share = 0.0
    """Share of the rate left at the end of each descent, 0 to below 1."""


class OneCycleSchedule(SpecModel):
    """Up to the optimizer's rate, then down to next to nothing, each along half a cosine (Smith & Topin 2017)."""

    kind: Literal["one_cycle"] = "one_cycle"
    rise: Annotated[Float, Field(gt=0.0, lt=1.0)] = 0.3
    """Share of all steps spent rising, above 0 to below 1."""
    start_factor: Annotated[Float, Field(gt=0.0, le=1.0)] = 0.04
    """Share of the rate at the first step, above 0 to 1."""
    final_factor: Share = 4e-6
    """Share of the rate at the last step, 0 to below 1."""


class InverseSqrtSchedule(SpecModel):
    """A linear rise to the optimizer's rate, then down with the square root of the step (Vaswani et al. 2017).

    With a rate of `(d_model * warmup_steps)^-0.5` it is the paper's.
    """

    kind: Literal["inverse_sqrt"] = "inverse_sqrt"
    warmup_steps: Annotated[Int, Field(ge=1, le=10**9)] = 4000
    """Optimizer steps until the full rate, 1 to 1,000,000,000."""


class PlateauSchedule(SpecModel):
    """The rate is multiplied by `gamma` whenever the selection metric has not improved for a number of epochs."""

    kind: Literal["plateau"] = "plateau"
    gamma: Gamma = 0.1
    """Factor at each step, above 0 to 1."""
    patience: Epochs = 3
    """Epochs without improvement before a step."""
    min_delta: NonNegative = 0.0
    """A change of the metric by more than this counts as an improvement, in the metric's own unit, 0 or more."""
    cooldown: Annotated[Int, Field(ge=0, le=100_000)] = 0
    """Epochs after a step that are not waited, 0 to 100,000."""
    final_factor: Share = 0.0
    """Share of the rate below which no step goes, 0 to below 1."""


Schedule = Annotated[
    ConstantSchedule
    | StepSchedule
    | MultiStepSchedule
    | ExponentialSchedule
    | PolynomialSchedule
    | CosineSchedule
    | CosineRestartsSchedule
    | OneCycleSchedule
    | InverseSqrtSchedule
    | PlateauSchedule,
    Field(discriminator="kind"),
]


class Warmup(SpecModel):
    """A linear rise to the full rate at the start, on top of any schedule (Goyal et al. 2017)."""

    epochs: Annotated[Float, Field(gt=0.0, le=100_000.0)] = 1.0
    """Length in epochs, fractions allowed; must be below the number of epochs."""
    start_factor: Annotated[Float, Field(gt=0.0, le=1.0)] = 0.01
    """Share of the rate at the first step, above 0 to 1."""
