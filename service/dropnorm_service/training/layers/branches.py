"""Blocks whose input takes several ways that meet again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from dropnorm_service.training.layers.context import Context, Contextual, pass_on

Meeting = Literal["add", "concatenate", "gate", "side"]


def add(ways: Sequence[Tensor]) -> Tensor:
    """The sum of tensors of one shape: residual blocks (He et al. 2015)."""
    total, *others = ways
    for way in others:
        total = total + way
    return total


def concatenate(ways: Sequence[Tensor]) -> Tensor:
    """Channels side by side: inception modules (Szegedy et al. 2014), dense blocks (Huang et al. 2016)."""
    return torch.cat(list(ways), dim=1)


def gate(ways: Sequence[Tensor]) -> Tensor:
    """The product; a factor may be one number per channel: squeeze and excitation (Hu et al. 2018)."""
    product, *others = ways
    for way in others:
        product = product * way
    return product


MEETINGS = {"add": add, "concatenate": concatenate, "gate": gate}
"""How ways meet -> the function of their tensors `[batch, ...]`. A side does not meet: it is `Side`."""


class Branches(Contextual):
    """`y = meet(way(x) for each way)`.

    Args:
        meeting: how the ways meet.
        ways: the module of each, by name; `nn.Identity` where the input itself goes on.
    """

    def __init__(self, meeting: Meeting, ways: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.meeting: Meeting = meeting
        for name, way in ways.items():
            self.add_module(name, way)

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        return MEETINGS[self.meeting]([pass_on(way, x, context) for way in self.children()])

    def extra_repr(self) -> str:
        return self.meeting


class Side(nn.Module):
    """Lets its input through. In training its head guesses from it, for a loss of its own.

    Attributes:
        guess: what the head made of the last training batch, `[batch, outputs]`.
    """

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head
        self.guess: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.guess = self.head(x) if self.training else None
        return x

    def guessed(self, *inputs: Tensor) -> Tensor:
        """The guess of the pass before, in the place of a network's forward pass over the same inputs."""
        assert self.guess is not None  # the network is in training
        return self.guess
