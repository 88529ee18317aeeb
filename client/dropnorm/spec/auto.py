"""Values that the service chooses before training: the learning rate, and the batch size."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dropnorm.spec._base import Float, Int, SpecModel
from dropnorm.spec.batch_sizes import BatchSize


class AutoLearningRate(SpecModel):
    """The optimizer's learning rate is found by a range test (Smith 2017) and takes the place of `lr`.

    A copy of the untrained network is trained with a rate that rises exponentially around the optimizer's. Chosen is
    the rate at which the smoothed loss has made half of its way down from where the first fifth of the test holds it.
    Where it falls by no more than the noise of batches explains, `lr` stays and a warning says so; more steps tell
    more.
    """

    lowest_factor: Annotated[Float, Field(gt=0.0, lt=1.0)] = 1e-3
    """The first rate, as a share of the optimizer's, above 0 to below 1."""
    highest_factor: Annotated[Float, Field(gt=1.0, le=1e6)] = 1e3
    """The last rate, as a multiple of the optimizer's, above 1 to 1,000,000."""
    steps: Annotated[Int, Field(ge=20, le=10_000)] = 100
    """Optimizer steps of the test, 20 to 10,000."""


class AutoBatchSize(SpecModel):
    """The largest batch size of which a training step fits into memory takes the place of `batch_size`.

    Tried are `batch_size` and what comes of it by doubling and halving, but for what leaves batch norm a batch of one
    sample. The estimate is the plan's.
    """

    max_size: BatchSize = 4096
    """Samples per step at most, 1 to 1,048,576; and never more than the training split has."""
    memory_share: Annotated[Float, Field(gt=0.0, le=1.0)] = 0.8
    """Share of the device's memory that a step may take, above 0 to 1; the estimate leaves out what the device itself
    needs."""
