"""Residual blocks (He et al. 2015)."""

from __future__ import annotations

from torch import Tensor, nn


class Residual(nn.Module):
    """`y = layers(x) + shortcut(x)`; without a shortcut module the input itself is added."""

    def __init__(self, layers: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.layers = layers
        self.shortcut = nn.Identity() if shortcut is None else shortcut

    def forward(self, x: Tensor) -> Tensor:
        branch: Tensor = self.layers(x)
        shortcut: Tensor = self.shortcut(x)
        return branch + shortcut
