"""Which epoch is the best, whose weights are kept, and when training stops for lack of a better one."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dropnorm.results import EpochMetrics
from dropnorm.spec import TrainingSpec


def merit(spec: TrainingSpec, metrics: EpochMetrics) -> float:
    """The metric that selects, negated where less is better."""
    if spec.evaluation.selection == "validation_accuracy":
        return metrics.validation_accuracy or 0.0
    return -metrics.validation_loss


@dataclass
class Selection:
    """The best epoch so far, and how long nothing has improved.

    The best is strictly better than all before it; of equals the first. To early stopping an epoch
    is an improvement when it is better by more than `min_delta` than the last one that was.

    Attributes:
        epoch: the best epoch, from 1; 0: none yet.
        value: its metric, negated where less is better.
        seconds: wall time from the start of the training to its end.
        reference: likewise, of the last improvement.
        waited: epochs since the last improvement.
    """

    epoch: int = 0
    value: float = math.nan
    seconds: float = 0.0
    reference: float = math.nan
    waited: int = 0

    def offer(self, spec: TrainingSpec, metrics: EpochMetrics, seconds: float) -> bool:
        """Take note of an epoch; whether it is the best so far."""
        stopping, value = spec.optimization.early_stopping, merit(spec, metrics)
        if self.epoch == 0 or value > self.reference + (stopping.min_delta if stopping else 0.0):
            self.reference, self.waited = value, 0
        else:
            self.waited += 1
        if self.epoch and value <= self.value:
            return False
        self.epoch, self.value, self.seconds = metrics.epoch, value, seconds
        return True

    def exhausted(self, spec: TrainingSpec) -> bool:
        """Whether early stopping ends the training."""
        stopping = spec.optimization.early_stopping
        return stopping is not None and self.waited >= stopping.patience
