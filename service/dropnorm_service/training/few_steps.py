"""Long sequences on the meta device, where torch takes a recurrent layer apart into operations of each step.

From the second step on each keeps as much for the backward pass as the one before, so that two short sequences tell
what a long one keeps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from dropnorm_service.training.kept import Kept
from dropnorm_service.training.layers import Context, Contextual
from dropnorm_service.training.layers.recurrent import Recurrent

_FEW = 2
"""Steps of the shorter sequence; the longer has one more. The first step alone differs from those after it: a state of
zeros has no gradient."""


@dataclass(frozen=True)
class _Run:
    """What a recurrent layer made of a sequence.

    Attributes:
        inputs_kept: which of the tensors that entered are kept.
        inside: bytes kept of what it made itself.
        strides: of the outputs `[batch, length, units]`.
        states: the last state.
    """

    inputs_kept: tuple[bool, ...]
    inside: int
    strides: tuple[int, ...]
    states: tuple[Tensor, ...]

    def longer(self, more: _Run, steps: int) -> _Run:
        """The run of so many steps more, where `more` is that of one step more."""
        strides = zip(self.strides, more.strides, strict=True)
        return replace(
            self,
            inside=self.inside + steps * (more.inside - self.inside),
            strides=tuple(one + steps * (other - one) for one, other in strides),
        )


class FewSteps(Contextual):
    """A recurrent layer on the meta device, which keeps as much for the backward pass and runs over few steps alone.

    What enters and what leaves is as of the layer itself: shapes, strides, storages, and which of them are kept.

    Args:
        layer: the layer.
        runs: what is known of layers like it, which it adds to.
    """

    def __init__(self, layer: Recurrent, runs: dict[tuple[object, ...], _Run]) -> None:
        super().__init__()
        self.layer = layer
        self._runs = runs

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        layer, context = self.layer, Context() if context is None else context
        length = x.shape[1]
        if length <= _FEW + 1:
            output: Tensor = layer(x, context)
            return output
        state = context.states.get(layer.depth, ())
        entering = [each for each in (context.padding, context.memory, *state) if each is not None]
        like = (
            (type(layer), layer.extra_repr(), context.padding is None),
            *((each.shape, each.stride(), each.requires_grad) for each in (x, *entering)),
        )
        if like not in self._runs:
            short, more = (self._run(x, context, steps) for steps in (_FEW, _FEW + 1))
            self._runs[like] = short.longer(more, length - _FEW)
        outputs: Tensor
        outputs, *last = _StandIn.apply(  # type: ignore[no-untyped-call]
            self._runs[like], layer, x, *entering, layer.weight
        )
        context.states[layer.depth] = tuple(last)
        return outputs

    def _run(self, x: Tensor, context: Context, steps: int) -> _Run:
        """The layer's run over the first steps, of which nothing but the account stays."""
        depth, state = self.layer.depth, context.states.get(self.layer.depth)
        first, padding = _first(x, steps), context.padding
        own = replace(
            context,
            padding=None if padding is None else _first(padding, steps),
            memory=None if context.memory is None else _cut_off(context.memory),
            states={} if state is None else {depth: tuple(map(_cut_off, state))},
        )
        entering = [first, *(each for each in (own.padding, own.memory) if each is not None)]
        entering += own.states.get(depth, ())
        kept = Kept(besides=self.layer.parameters())
        with kept.watching():
            outputs = self.layer(first, own)
        return _Run(
            inputs_kept=tuple(each in kept for each in entering),
            inside=kept.bytes(besides=entering),
            strides=outputs.stride(),
            states=tuple(each.detach() for each in own.states[depth]),
        )


class _StandIn(torch.autograd.Function):
    """Outputs and last state like a layer's, and for the backward pass, which never comes, what it would keep."""

    @staticmethod
    def forward(ctx: Any, run: _Run, layer: Recurrent, x: Tensor, *others: Tensor) -> Any:
        kept: Sequence[Tensor] = [
            each
            for each, is_kept in zip((x, *others), (*run.inputs_kept, False), strict=True)
            if is_kept
        ]
        ctx.save_for_backward(*kept, x.new_empty(run.inside, dtype=torch.uint8))
        outputs = x.new_empty_strided((*x.shape[:2], layer.units), run.strides)
        return outputs, *(torch.empty_like(each) for each in run.states)


def over_few_steps(network: nn.Module) -> None:
    """Let the recurrent layers of a network on the meta device run over few steps; their names get longer."""
    runs: dict[tuple[object, ...], _Run] = {}
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, Recurrent):
                module.register_module(name, FewSteps(child, runs))


def _first(sequences: Tensor, steps: int) -> Tensor:
    """As many first steps of sequences, in the same order in memory, in a storage of their own."""
    return torch.empty_like(sequences[:, :steps]).requires_grad_(sequences.requires_grad)


def _cut_off(tensor: Tensor) -> Tensor:
    """The same values without their history."""
    return tensor.detach().requires_grad_(tensor.requires_grad)
