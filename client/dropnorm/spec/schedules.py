"""The learning rate over time: the kinds of schedule, and the warm-up on top of them.

A schedule is a factor on the optimizer's rate, `lr(step) = optimizer.lr * warmup(step) * schedule(step)`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dropnorm.spec._base import Epochs, Float, Share, SpecModel


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
