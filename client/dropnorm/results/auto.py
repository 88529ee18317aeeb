"""What automatic values came to."""

from __future__ import annotations

from dropnorm.results._base import ResultModel


class RangeTestPoint(ResultModel):
    """One step of a learning-rate range test."""

    learning_rate: float
    """Learning rate of the step."""
    loss: float
    """Loss of its batch before the step."""


class AutoOutcome(ResultModel):
    """What was chosen before training. Absent: it was not asked for."""

    learning_rate: float | None = None
    """Learning rate in the place of the optimizer's; absent too when the range test found none."""
    range_test: tuple[RangeTestPoint, ...] = ()
    """The range test, step by step."""
    batch_size: int | None = None
    """Batch size in the place of the spec's."""
