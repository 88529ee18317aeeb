"""Samples and targets mixed with others of their batch: mixup (Zhang et al. 2017) and CutMix (Yun et al. 2019)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Beta


class Mixing:
    """Gives each sample a partner, by one permutation of the batch, and a share of its own.

    Args:
        mixup_alpha: concentration of the shares of mixup; None: it is not asked for.
        cutmix_alpha: likewise of CutMix. Of both, each sample undergoes one, with even chances.
        classes: number of classes; None: targets are numbers.
        device: where batches are.
    """

    def __init__(
        self,
        mixup_alpha: float | None,
        cutmix_alpha: float | None,
        classes: int | None,
        device: torch.device,
    ) -> None:
        self._mixup, self._cutmix = (
            None if alpha is None else _symmetric(alpha, device)
            for alpha in (mixup_alpha, cutmix_alpha)
        )
        self._classes = classes

    def __call__(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs, and targets as numbers `[batch, outputs]`: of classes their shares."""
        partners = torch.randperm(len(x), device=x.device)
        own, other = self._numbers(y), x.index_select(0, partners)
        mixed, share = self._mixed(x, other)
        return mixed, torch.lerp(own.index_select(0, partners), own, share.unsqueeze(1))

    def _mixed(self, x: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        """The inputs, and the share that each has kept of itself, `[batch]`."""
        count = (len(x),)
        if self._cutmix is None:
            assert self._mixup is not None  # one of them is asked for
            share = self._mixup.sample(count)
            return torch.lerp(other, x, _over(share, x)), share
        box = boxes(self._cutmix.sample(count), x.shape[2], x.shape[3])
        kept = 1.0 - box.float().mean(dim=(1, 2))
        cut = torch.where(box.unsqueeze(1), other, x)
        if self._mixup is None:
            return cut, kept
        share = self._mixup.sample(count)
        blended = torch.lerp(other, x, _over(share, x))
        chosen = torch.rand(count, device=x.device) < 0.5
        return torch.where(_over(chosen, x), cut, blended), torch.where(chosen, kept, share)

    def _numbers(self, y: Tensor) -> Tensor:
        if self._classes is None:
            return y
        return torch.zeros(len(y), self._classes, device=y.device).scatter_(1, y.unsqueeze(1), 1.0)


def boxes(kept: Tensor, height: int, width: int) -> Tensor:
    """Which pixels of each image are replaced: bool `[batch, height, width]`.

    The box has the sides `height * sqrt(1 - kept)` and `width * sqrt(1 - kept)`, rounded down, around a pixel drawn
    evenly from all; what lies beyond the image is cut off.

    Args:
        kept: share of the area that stays, `[batch]`.
        height, width: of the images.
    """
    side = (1.0 - kept).sqrt()
    rows, columns = (_stretch(side, size) for size in (height, width))
    return rows.unsqueeze(2) & columns.unsqueeze(1)


def _stretch(share: Tensor, size: int) -> Tensor:
    """A stretch of a share of one side, around a random place: bool `[batch, size]`."""
    length = (share * size).long()
    start = torch.randint(size, share.shape, device=share.device) - length // 2
    places = torch.arange(size, device=share.device)
    return (places >= start.unsqueeze(1)) & (places < (start + length).unsqueeze(1))


def _symmetric(alpha: float, device: torch.device) -> Beta:
    concentration = torch.tensor(alpha, device=device)
    return Beta(concentration, concentration, validate_args=False)


def _over(values: Tensor, x: Tensor) -> Tensor:
    """`[batch]` -> `[batch, 1, ...]`, with as many dimensions as x has."""
    return values.view(-1, *(1,) * (x.ndim - 1))
