"""Pooling that torch lacks in a deterministic form."""

from __future__ import annotations

from torch import Tensor, nn


class GlobalAveragePool(nn.Module):
    """The mean over an image: `[batch, C, H, W]` -> `[batch, C, 1, 1]` (Lin et al. 2013).

    `nn.AdaptiveAvgPool2d` computes the same, but on a GPU its backward pass is not deterministic.
    """

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(-2, -1), keepdim=True)
