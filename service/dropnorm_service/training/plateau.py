"""The learning rate that falls when nothing improves: the one schedule with a state."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dropnorm.spec import Schedule
from dropnorm.spec.schedules import PlateauSchedule


@dataclass
class Plateau:
    """How far the rate has fallen, and how long nothing has improved.

    Torch's `ReduceLROnPlateau` with an absolute threshold and `patience - 1`: there the patience is
    outlasted, here, as in early stopping, it runs out.

    Attributes:
        factor: on the learning rate.
        best: the best value of the metric so far, more being better.
        waited: epochs since then.
        cooling: epochs left of a cooldown.
    """

    factor: float = 1.0
    best: float = -math.inf
    waited: int = 0
    cooling: int = 0

    def offer(self, schedule: Schedule, value: float) -> None:
        """Take note of an epoch's metric, more being better."""
        if not isinstance(schedule, PlateauSchedule):
            return
        if value > self.best + schedule.min_delta:
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        if self.cooling:
            self.cooling, self.waited = self.cooling - 1, 0
        if self.waited >= schedule.patience:
            self.factor = max(self.factor * schedule.gamma, schedule.final_factor)
            self.cooling, self.waited = schedule.cooldown, 0
