"""How a split is cut into batches, and in which order an epoch sees its samples; without state."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch

_LARGEST_PIECE = 1 << 20
"""Values that are looked at in double precision at once: some hundredths of a second, and 8 MiB."""


@dataclass(frozen=True)
class Batching:
    """A split cut into batches.

    Attributes:
        samples: samples in the split.
        batch_size: samples in a full batch; never more than the split has.
        steps_per_epoch: batches per epoch.
        last_batch_size: samples in an epoch's last batch.
    """

    samples: int
    batch_size: int
    steps_per_epoch: int
    last_batch_size: int

    @classmethod
    def of(
        cls, samples: int, batch_size: int, last_batch: Literal["keep", "drop"] = "keep"
    ) -> Batching:
        """Cut `samples` into batches; a last batch that is not full is kept or dropped.

        A split smaller than a batch is one batch, dropped or not: an epoch has at least one step.

        Raises:
            ValueError: there are no samples, or a batch would hold none.
        """
        if samples < 1 or batch_size < 1:
            raise ValueError(f"cannot cut {samples} samples into batches of {batch_size}")
        size = min(samples, batch_size)
        full, rest = divmod(samples, size)
        if rest and last_batch == "keep":
            return cls(samples, size, full + 1, rest)
        return cls(samples, size, full, size)

    @property
    def samples_per_epoch(self) -> int:
        """Samples an epoch trains on: all, but for a dropped last batch."""
        return self.batch_size * (self.steps_per_epoch - 1) + self.last_batch_size

    @property
    def slices(self) -> tuple[slice, ...]:
        """Where each batch lies in the epoch's order."""
        used, size = self.samples_per_epoch, self.batch_size
        return tuple(slice(start, min(start + size, used)) for start in range(0, used, size))


def pieces(values: torch.Tensor, between: Callable[[], None]) -> Iterator[slice]:
    """Rows of `[samples, values]`, few enough that whoever waits for what is made of them waits a moment only.

    Args:
        values: at least one a sample.
        between: called after each piece; what it raises ends the walk.
    """
    samples, width = values.shape
    size = max(1, _LARGEST_PIECE // width)
    for start in range(0, samples, size):
        yield slice(start, start + size)
        between()


def derived_seed(seed: int, *purpose: str | int) -> int:
    """A seed for one purpose, 0 to 2^64 - 1: streams of different purposes have nothing in common.

    The first eight bytes, big-endian, of SHA-256 over seed and purpose as text, joined by `/`:
    `7/order/3`.
    """
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def epoch_order(samples: int, seed: int, epoch: int) -> torch.Tensor:
    """The order in which an epoch (from 1) sees its samples: int64 `[samples]`, on the CPU.

    `torch.randperm` from a generator seeded with `derived_seed(seed, "order", epoch)`: the same on
    every device, and for a training that went on in another process.
    """
    generator = torch.Generator().manual_seed(derived_seed(seed, "order", epoch))
    return torch.randperm(samples, generator=generator)
