"""How a whole training is cut into batches, epoch by epoch; a pure function of the spec and the split's size."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple, Self

from dropnorm.spec import BatchSizeGrowth, BatchSizeSchedule, Optimization
from dropnorm_service.training.batching import Batching


class Stretch(NamedTuple):
    """Epochs that are cut alike.

    Attributes:
        first_epoch: the first of them, from 1.
        first_step: optimizer steps before it.
        batching: how each is cut.
    """

    first_epoch: int
    first_step: int
    batching: Batching


@dataclass(frozen=True)
class Timetable:
    """Which batches each epoch of a training has.

    Attributes:
        epochs: epochs asked for.
        stretches: in order; the first begins with epoch 1.
    """

    epochs: int
    stretches: tuple[Stretch, ...]

    @classmethod
    def of(cls, optimization: Optimization, samples: int) -> Self:
        """The timetable of a training split of so many samples."""
        stretches: list[Stretch] = []
        sizes = batch_sizes(optimization.batch_size, optimization.batch_size_schedule)
        for epoch, size in sizes.items():
            batching = Batching.of(samples, size, optimization.last_batch)
            if stretches:
                last = stretches[-1]
                if batching == last.batching:
                    continue
                steps = (epoch - last.first_epoch) * last.batching.steps_per_epoch
                stretches.append(Stretch(epoch, last.first_step + steps, batching))
            else:
                stretches.append(Stretch(epoch, 0, batching))
        return cls(optimization.epochs, tuple(stretches))

    @property
    def steps(self) -> int:
        """Optimizer steps in all."""
        return self.steps_before(self.epochs + 1)

    @property
    def batchings(self) -> tuple[Batching, ...]:
        """Every way in which an epoch is cut."""
        return tuple(stretch.batching for stretch in self.stretches)

    def batching(self, epoch: int) -> Batching:
        """How an epoch, from 1, is cut."""
        return self._stretch(epoch).batching

    def steps_before(self, epoch: int) -> int:
        """Optimizer steps of all the epochs before one."""
        stretch = self._stretch(epoch)
        return stretch.first_step + (epoch - stretch.first_epoch) * stretch.batching.steps_per_epoch

    def _stretch(self, epoch: int) -> Stretch:
        index = bisect_right(self.stretches, epoch, key=lambda stretch: stretch.first_epoch)
        return self.stretches[index - 1]


def batch_sizes(first: int, schedule: BatchSizeSchedule | None) -> dict[int, int]:
    """The batch size from an epoch on, by that epoch, counted from 1."""
    sizes = {1: first}
    if isinstance(schedule, BatchSizeGrowth):
        for number, done in enumerate(schedule.milestones, start=1):
            grown = round(first * schedule.factor**number)
            sizes[done + 1] = min(grown, schedule.max_size or grown)
    elif schedule is not None:
        changes = zip(schedule.milestones, schedule.sizes, strict=True)
        sizes |= {done + 1: size for done, size in changes}
    return sizes


def part_sizes(samples: int, micro_batch_size: int | None) -> tuple[int, int]:
    """The smallest and the largest of the equal parts that a batch of so many samples is computed in."""
    parts = ceil(samples / (micro_batch_size or samples))
    return samples // parts, ceil(samples / parts)


def largest_part(optimization: Optimization, timetable: Timetable) -> int:
    """The most samples that are computed at once in training."""
    batches = (batching.batch_size for batching in timetable.batchings)
    return max(part_sizes(size, optimization.micro_batch_size)[1] for size in batches)
