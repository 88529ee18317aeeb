"""Norms that torch lacks, or has for one kind of input only."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dropnorm_service.training.layers.context import Context, Contextual


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


class TokenGroupNorm(nn.GroupNorm):
    """A group norm of each token of a sequence by itself: `[batch, tokens, features]`, which it keeps."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, 1)).view_as(x)


class TokenBatchNorm(nn.BatchNorm1d, Contextual):
    """A batch norm per feature over all tokens of a batch, without its padding.

    `[batch, tokens, features]`, which it keeps. Padding is normalised as well, and changes nothing.
    """

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        uses_batch = self.training or self.running_mean is None
        if context is None or context.padding is None or not uses_batch:
            return super().forward(x.flatten(0, 1)).view_as(x)
        counts = context.padding.logical_not().unsqueeze(2)
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        number = counts.sum().clamp(min=1)
        mean = (wide * counts).sum((0, 1)) / number
        deviations = wide - mean
        variance = (deviations.square() * counts).sum((0, 1)) / number
        if self.training and self.running_mean is not None:
            self._remember(mean.detach(), variance.detach(), number)
        y = (deviations * (variance + self.eps).rsqrt()).to(x.dtype)
        return y * self.weight + self.bias if self.affine else y

    def _remember(self, mean: Tensor, variance: Tensor, number: Tensor) -> None:
        """The newest batch's share in the running statistics, whose variance is unbiased as torch's is."""
        assert self.running_mean is not None  # it was asked for
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1.0 / self.num_batches_tracked if self.momentum is None else self.momentum
        unbiased = variance * number / (number - 1).clamp(min=1)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)


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
