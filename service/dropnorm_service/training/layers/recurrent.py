"""Recurrent layers: long short-term memory and gated recurrent units.

A layer runs in one of two ways, which give the same numbers: by torch's kernel for all steps at once, or step by
step where units are dropped between them.

Padding stands before a sequence's first token. There a layer without a state must stay without one, which takes no
mask: zeros that come into zero weights leave a zero state as it is, if only the bias is left out as well. So the bias
becomes the weight of one input more, which is 1 at a token and 0 at padding.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from math import sqrt
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dropnorm_service.training.layers.context import Context, Contextual, RecurrentState
from dropnorm_service.training.layers.dropout import dropout


class Recurrent(Contextual):
    """A recurrent layer: `[batch, length, inputs]` -> `[batch, length, units]`, every step's output.

    It starts from the context's state of its depth, if there is one, and leaves its last state there.

    Args:
        inputs: features that enter each step.
        units: features that leave it.
        depth: which state of the context is its own.
        summary: features of the context's memory, one vector, which enter each step after the inputs; 0: none do.
        rate: share of the units dropped of what each step takes from the one before it, the same ones in all steps of
            a sequence (Gal & Ghahramani 2016); it may change between steps of training.
    """

    gates: ClassVar[int]

    def __init__(
        self, inputs: int, units: int, *, depth: int, summary: int = 0, rate: float = 0.0
    ) -> None:
        super().__init__()
        self.inputs, self.units, self.depth, self.summary = inputs, units, depth, summary
        self.rate = rate
        self.weight = nn.Parameter(torch.empty(self.gates * units, inputs + summary + units))
        self.bias = nn.Parameter(torch.empty(self.gates * units))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As torch's own: uniform in `+-1/sqrt(units)`."""
        bound = 1.0 / sqrt(self.units)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def gate_weights(self) -> list[Tensor]:
        """Views of the weights: of each gate those of what enters and those of the last step's output."""
        return [
            part
            for gate in self.weight.chunk(self.gates)
            for part in gate.split([self.inputs + self.summary, self.units], dim=1)
        ]

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        context = Context() if context is None else context
        x = self._entering(x, context).to(self.weight.dtype)
        state = context.states.get(self.depth)
        there = None
        if state is None:
            if context.padding is not None:
                there = context.padding.logical_not().unsqueeze(2).to(x.dtype)
            state = self.no_state(x)
        state = tuple(each.to(x.dtype) for each in state)
        stepwise = self.training and self.rate > 0.0
        run = self._by_step if stepwise else self._at_once
        outputs, context.states[self.depth] = run(x, state, there)
        return outputs

    @abstractmethod
    def no_state(self, x: Tensor) -> RecurrentState:
        """The state before a sequence: zeros, `[batch, units]` each."""

    @abstractmethod
    def kernel(
        self, x: Tensor, state: RecurrentState, weights: tuple[Tensor, ...]
    ) -> tuple[Tensor, RecurrentState]:
        """All steps by torch: outputs and last state. Weights are of inputs, of the last output, and two biases or
        none."""

    @abstractmethod
    def step(
        self, entering: Tensor, state: RecurrentState, taken: Tensor, weight: Tensor
    ) -> RecurrentState:
        """The state after one step, whose first part is the output.

        Args:
            entering: what inputs and bias come to, `[batch, gates * units]`.
            state: before the step.
            taken: of the last output what is not dropped, `[batch, units]`.
            weight: of the last output, `[gates * units, units]`.
        """

    def _entering(self, x: Tensor, context: Context) -> Tensor:
        if not self.summary:
            return x
        assert context.memory is not None  # the network hands it down
        return torch.cat([x, context.memory.expand(-1, x.shape[1], -1)], dim=2)

    def _at_once(
        self, x: Tensor, state: RecurrentState, there: Tensor | None
    ) -> tuple[Tensor, RecurrentState]:
        before, after = self.weight.split([self.inputs + self.summary, self.units], dim=1)
        if there is None:
            weights = _together(before, after, self.bias, torch.zeros_like(self.bias))
        else:
            before = torch.cat([before, self.bias.unsqueeze(1)], dim=1)
            x, weights = torch.cat([x * there, there], dim=2), _together(before, after)
        if x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            # Many CPUs lack the instructions that torch's kernel needs for anything but float32.
            with torch.autocast("cpu", enabled=False):
                return self.kernel(x, state, weights)
        return self.kernel(x, state, weights)

    def _by_step(
        self, x: Tensor, state: RecurrentState, there: Tensor | None
    ) -> tuple[Tensor, RecurrentState]:
        before, after = self.weight.split([self.inputs + self.summary, self.units], dim=1)
        entering = F.linear(x, before, self.bias)
        kept = dropout(torch.ones_like(state[0]), self.rate, training=self.training)
        outputs = []
        for place in range(x.shape[1]):
            state = self.step(entering[:, place], state, state[0] * kept, after)
            if there is not None:
                state = tuple(each * there[:, place] for each in state)
            outputs.append(state[0])
        return torch.stack(outputs, dim=1), state

    def extra_repr(self) -> str:
        more = f", summary={self.summary}" if self.summary else ""
        return f"{self.inputs}, {self.units}, rate={self.rate:g}{more}"


class LSTM(Recurrent):
    """Long short-term memory (Hochreiter & Schmidhuber 1997, with forget gates) of gates i, f, g and o.

    `c' = sigmoid(f) * c + sigmoid(i) * tanh(g)` and `h' = sigmoid(o) * tanh(c')`, each gate `W [x, h] + b`: torch's,
    with the sum of its two biases. The state is h and c.
    """

    gates = 4

    def no_state(self, x: Tensor) -> RecurrentState:
        zeros = x.new_zeros(x.shape[0], self.units)
        return zeros, zeros

    def kernel(
        self, x: Tensor, state: RecurrentState, weights: tuple[Tensor, ...]
    ) -> tuple[Tensor, RecurrentState]:
        begin = [each.unsqueeze(0) for each in state]
        outputs, h, c = torch.lstm(
            x, begin, weights, len(weights) > 2, 1, 0.0, self.training, False, True
        )
        return outputs, (h.squeeze(0), c.squeeze(0))

    def step(
        self, entering: Tensor, state: RecurrentState, taken: Tensor, weight: Tensor
    ) -> RecurrentState:
        i, f, g, o = (entering + F.linear(taken, weight)).chunk(4, dim=1)
        c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class GRU(Recurrent):
    """Gated recurrent units (Cho et al. 2014) of gates r, z and n.

    `h' = (1 - z) * n + z * h` with `n = tanh(W x + b + r * (U h))`: the reset gate acts behind the weights, as torch's
    does and its kernels, where the paper has `U (r * h)`. One bias a gate, torch's of the inputs. The state is h.
    """

    gates = 3

    def no_state(self, x: Tensor) -> RecurrentState:
        return (x.new_zeros(x.shape[0], self.units),)

    def kernel(
        self, x: Tensor, state: RecurrentState, weights: tuple[Tensor, ...]
    ) -> tuple[Tensor, RecurrentState]:
        outputs, h = torch.gru(
            x, state[0].unsqueeze(0), weights, len(weights) > 2, 1, 0.0, self.training, False, True
        )
        return outputs, (h.squeeze(0),)

    def step(
        self, entering: Tensor, state: RecurrentState, taken: Tensor, weight: Tensor
    ) -> RecurrentState:
        r, z, n = entering.chunk(3, dim=1)
        before_r, before_z, before_n = F.linear(taken, weight).chunk(3, dim=1)
        z = (z + before_z).sigmoid()
        n = (n + (r + before_r).sigmoid() * before_n).tanh()
        return ((1.0 - z) * n + z * state[0],)


CELLS: Mapping[str, type[Recurrent]] = {"lstm": LSTM, "gru": GRU}
"""Kind of recurrent layer -> its module."""


def _together(*weights: Tensor) -> tuple[Tensor, ...]:
    """The same weights, one after the other in memory, as cuDNN wants them."""
    whole = torch.cat([each.flatten() for each in weights])
    parts = whole.split([each.numel() for each in weights])
    return tuple(part.view_as(each) for part, each in zip(parts, weights, strict=True))
