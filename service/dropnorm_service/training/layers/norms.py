"""Norms of a sample by itself that torch lacks, or has for one kind of input only."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """`y = gamma * x / sqrt(mean(x^2) + eps)` over all values of a sample (Zhang & Sennrich 2019).

    `[batch, channels, ...]`, which it keeps. Of an image gamma is one per channel.

    Args:
        channels: features of a vector or channels of an image.
        eps: added to the mean square.
        affine: learn gamma.
    """

    def __init__(self, channels: int, *, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        self.channels, self.eps = channels, eps
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        # The squares of 16-bit floats overflow where the root itself would not.
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        values = tuple(range(1, x.ndim))
        y = x * torch.rsqrt(wide.square().mean(values, keepdim=True) + self.eps).to(x.dtype)
        if self.weight is None:
            return y
        return y * self.weight.view(-1, *(1 for _ in x.shape[2:]))

    def extra_repr(self) -> str:
        return f"{self.channels}, eps={self.eps}, affine={self.weight is not None}"


def groups_of(channels: int, most: int, values: int) -> int:
    """The number of groups of a group norm.

    Args:
        channels: features of a vector or channels of an image.
        most: groups at most.
        values: values per channel of one sample.

    Returns:
        The largest number up to `most` that divides the channels and leaves each group two values; 0 where
        not even all channels together have two.
    """
    fitting = (
        groups
        for groups in range(1, min(most, channels) + 1)
        if channels % groups == 0 and channels // groups * values >= 2
    )
    return max(fitting, default=0)
