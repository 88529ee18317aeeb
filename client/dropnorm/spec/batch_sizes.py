"""The batch size over time: larger batches late in training, as Smith et al. (2018) have it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from dropnorm.spec._base import Float, Int, Problem, SpecModel
from dropnorm.spec.schedules import Milestones, milestone_rules

BatchSize = Annotated[Int, Field(ge=1, le=2**20)]
LearningRateScaling = Literal["none", "linear", "square_root"]


class BatchSizeSteps(SpecModel):
    """Another batch size after each of some epochs."""

    kind: Literal["steps"] = "steps"
    milestones: Milestones
    """Epochs done before each change, rising, at most 64; must be below the number of epochs."""
    sizes: Annotated[tuple[BatchSize, ...], Field(max_length=64)]
    """Samples per step from each milestone on, as many as there are milestones, each 1 to 1,048,576."""
    lr_scaling: LearningRateScaling = "none"
    """What the learning rate does as batches grow k-fold: nothing, as where growth takes the place of a decay of the
    rate (Smith et al. 2018); `linear`, it grows k-fold (Goyal et al. 2017); `square_root`, sqrt(k)-fold (Krizhevsky
    2014)."""

    def _rules(self) -> Iterator[Problem]:
        yield from milestone_rules(self.milestones)
        if len(self.sizes) != len(self.milestones):
            yield Problem("sizes", f"give a size for each of the {len(self.milestones)} milestones")


class BatchSizeGrowth(SpecModel):
    """Batches that grow by a factor after each of some epochs (Smith et al. 2018)."""

    kind: Literal["growth"] = "growth"
    milestones: Milestones
    """Epochs done before each growth, rising, at most 64; must be below the number of epochs."""
    factor: Annotated[Float, Field(gt=1.0, le=1000.0)] = 2.0
    """How many times as large each time, above 1 to 1000; sizes are rounded to whole samples."""
    max_size: BatchSize | None = None
    """Samples per step at most, 1 to 1,048,576; absent: as many as the training split has."""
    lr_scaling: LearningRateScaling = "none"
    """What the learning rate does as batches grow k-fold: nothing, as where growth takes the place of a decay of the
    rate (Smith et al. 2018); `linear`, it grows k-fold (Goyal et al. 2017); `square_root`, sqrt(k)-fold (Krizhevsky
    2014)."""

    def _rules(self) -> Iterator[Problem]:
        yield from milestone_rules(self.milestones)


BatchSizeSchedule = Annotated[BatchSizeSteps | BatchSizeGrowth, Field(discriminator="kind")]
