"""Layers on the meta device that keep for the backward pass what a layer like them was seen to keep.

There torch takes most layers apart in Python, a recurrent one step by step, so that a deep network or a long sequence
takes many seconds. A layer that comes again is measured once. Of a sequence a recurrent layer takes a few steps: from
the second on each keeps as much as the one before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from dropnorm_service.training.design import Design, DesignedLayer
from dropnorm_service.training.elements import Element, Meet
from dropnorm_service.training.kept import Kept
from dropnorm_service.training.layers import Context
from dropnorm_service.training.layers.blueprints.recurrent import Recurrent

_FEW = 2
"""Steps of the shorter of two sequences; the longer has one more. The first step alone differs from those after it: a
state of zeros has no gradient."""

_MOST = 2**60
"""Bytes of one tensor; those of several together may be no 64-bit integer."""


@dataclass(frozen=True)
class _Form:
    """How a tensor lies in memory.

    Attributes:
        shape: its shape.
        strides: its strides.
        offset: values before it in its storage.
        values: values in its storage.
        dtype: of a value.
        entered: which of the tensors that entered it is in the storage of; None: none of them.
        kept: it is kept for the backward pass.
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    values: int
    dtype: torch.dtype
    entered: int | None
    kept: bool

    @classmethod
    def of(cls, tensor: Tensor, entering: Sequence[Tensor], kept: Kept) -> _Form:
        """The form of what a layer gave."""
        storage = tensor.untyped_storage()
        entered = (n for n, each in enumerate(entering) if _same_storage(each, tensor))
        return cls(
            shape=tuple(tensor.shape),
            strides=tensor.stride(),
            offset=int(tensor.storage_offset()),
            values=storage.nbytes() // tensor.element_size(),
            dtype=tensor.dtype,
            entered=next(entered, None),
            kept=tensor in kept,
        )

    def make(self, entering: Sequence[Tensor]) -> Tensor:
        """A tensor of this form."""
        base = (
            entering[0].new_empty(self.values, dtype=self.dtype)
            if self.entered is None
            else entering[self.entered]
        )
        return base.as_strided(self.shape, self.strides, self.offset)

    def longer(self, more: _Form, steps: int) -> _Form:
        """With so many steps more, where `more` has one more."""
        return replace(
            self,
            shape=_extended(self.shape, more.shape, steps),
            strides=_extended(self.strides, more.strides, steps),
            values=self.values + steps * (more.values - self.values),
        )


@dataclass(frozen=True)
class _Run:
    """What a layer made of what entered it.

    Attributes:
        entered_kept: which of the tensors that entered are kept.
        inside: bytes kept of what neither entered nor left.
        leaving: the output, and behind it a recurrent layer's last state.
    """

    entered_kept: tuple[bool, ...]
    inside: int
    leaving: tuple[_Form, ...]

    def longer(self, more: _Run, steps: int) -> _Run:
        """The run of so many steps more, where `more` is that of one more."""
        pairs = zip(self.leaving, more.leaving, strict=True)
        return replace(
            self,
            inside=self.inside + steps * (more.inside - self.inside),
            leaving=tuple(one.longer(other, steps) for one, other in pairs),
        )


@dataclass
class _Alike:
    """The forward pass of one layer, by what is known of those like it.

    Attributes:
        module: the layer.
        kind: what those like it have in common.
        runs: what is known, which it adds to.
        depth: whose state of the context a recurrent layer goes on from; None: it is none.
        forward: the layer's own pass.
        buffers: the layer's own.
        weight: one of its weights, so that what leaves it has a gradient; None: it has none.
    """

    module: nn.Module
    kind: int
    runs: dict[object, _Run]
    depth: int | None
    forward: Callable[..., Tensor] = field(init=False)
    buffers: Sequence[Tensor] = field(init=False)
    weight: Tensor | None = field(init=False)

    def __post_init__(self) -> None:
        self.forward = self.module.forward
        self.buffers = tuple(self.module.buffers())
        self.weight = next(self.module.parameters(), None)

    def __call__(self, x: Tensor, context: Context | None = None) -> Tensor:
        own = Context() if context is None else context
        entering = list(_entering(x, own, self.depth))
        length = x.shape[1] if self.depth is not None else 0
        like = self.kind, *map(_layout, entering), *_given(own)
        if like not in self.runs:
            if length <= _FEW + 1:
                self.runs[like] = self._run(x, context)
            else:
                short, more = (
                    self._run(_first(x, steps), _cut(own, steps)) for steps in (_FEW, _FEW + 1)
                )
                self.runs[like] = short.longer(more, length - _FEW)
        entering += self.buffers
        output: Tensor
        output, *state = _StandIn.apply(self.runs[like], self.weight, *entering)  # type: ignore[no-untyped-call]
        if self.depth is not None:
            own.states[self.depth] = tuple(state)
        return output

    def _run(self, x: Tensor, context: Context | None) -> _Run:
        """The layer's own pass, of which nothing but the account stays."""
        x = _cut_off(x)
        own = None if context is None else replace(context, states=dict(context.states))
        weights: list[Tensor] = [*self.module.parameters()]
        entering = [*_entering(x, own or Context(), self.depth), *self.buffers]
        if own is not None and own.embedding is not None:
            weights.append(own.embedding)
        kept = Kept(besides=weights)
        with kept.watching():
            output = self.forward(x) if own is None else self.forward(x, own)
        state = () if self.depth is None or own is None else own.states[self.depth]
        leaving = [output, *state]
        return _Run(
            entered_kept=tuple(each in kept for each in entering),
            inside=kept.bytes(besides=(*entering, *leaving)),
            leaving=tuple(_Form.of(each, entering, kept) for each in leaving),
        )


class _StandIn(torch.autograd.Function):
    """What leaves a layer, and for the backward pass, which never comes, what it would keep."""

    @staticmethod
    def forward(ctx: Any, run: _Run, weight: Tensor | None, *entering: Tensor) -> Any:
        leaving = tuple(each.make(entering) for each in run.leaving)
        pairs = zip(entering, run.entered_kept, strict=True)
        kept = [each for each, is_kept in pairs if is_kept]
        kept += [each for each, form in zip(leaving, run.leaving, strict=True) if form.kept]
        parts = (min(run.inside - start, _MOST) for start in range(0, run.inside, _MOST))
        kept += [entering[0].new_empty(part, dtype=torch.uint8) for part in parts]
        ctx.save_for_backward(*kept)
        return leaving


def let_stand_in(network: nn.Module, paper: Design) -> None:
    """Let layers of a network on the meta device stand in for those like them, and recurrent ones run over few steps.

    Shapes, and what is kept for the backward pass, stay what they were.
    """
    kinds: dict[object, int] = {}
    placed: list[tuple[Element, int]] = []
    for layer in paper.layers:
        _placed(layer, kinds, placed)
    times = Counter(kind for _, kind in placed)
    runs: dict[object, _Run] = {}
    for element, kind in placed:
        depth = element.layer.depth if isinstance(element.layer, Recurrent) else None
        if depth is not None or times[kind] > 1:
            module = network.get_submodule(element.name)
            module.forward = _Alike(module, kind, runs, depth)


def _placed(
    layer: DesignedLayer, kinds: dict[object, int], placed: list[tuple[Element, int]]
) -> tuple[int, bool]:
    """The kind of a layer, which those like it share, and whether it or one inside it is recurrent.

    Those that may stand in are put behind `placed`: all but blocks around recurrent layers, whose states they would
    have to know, and what is inside of attention, which looks into its layers.
    """
    inside = placed if isinstance(layer.element.layer, Meet) else []
    found = [[_placed(each, kinds, inside) for each in way] for way in layer.ways]
    settings: object = layer.element.layer
    recurrent = isinstance(settings, Recurrent)
    around = any(each for way in found for _, each in way)
    if isinstance(settings, Recurrent):
        settings = replace(settings, depth=0)
    ways = tuple(tuple(kind for kind, _ in way) for way in found)
    kind = kinds.setdefault((settings, layer.input_shape, ways), len(kinds))
    if not around:
        placed.append((layer.element, kind))
    return kind, recurrent or around


def _entering(x: Tensor, context: Context, depth: int | None) -> Iterator[Tensor]:
    """The tensors that a layer looks at, weights left out."""
    state = () if depth is None else context.states.get(depth, ())
    around = (context.padding, context.memory, context.memory_padding)
    return (each for each in (x, *around, *state) if each is not None)


def _given(context: Context) -> tuple[bool, ...]:
    around = (context.padding, context.memory, context.memory_padding, context.embedding)
    return tuple(each is not None for each in around)


def _layout(tensor: Tensor) -> object:
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.requires_grad


def _cut(context: Context, steps: int) -> Context:
    """What belongs to the first steps of a batch."""
    padding = context.padding
    return replace(context, padding=None if padding is None else _first(padding, steps))


def _first(sequences: Tensor, steps: int) -> Tensor:
    """As many first steps of sequences, in the same order in memory, in a storage of their own."""
    return torch.empty_like(sequences[:, :steps]).requires_grad_(sequences.requires_grad)


def _cut_off(tensor: Tensor) -> Tensor:
    """The same values without their history."""
    return tensor.detach().requires_grad_(tensor.requires_grad)


def _extended(one: Sequence[int], other: Sequence[int], steps: int) -> tuple[int, ...]:
    return tuple(first + steps * (more - first) for first, more in zip(one, other, strict=True))


def _same_storage(one: Tensor, other: Tensor) -> bool:
    return int(one.untyped_storage()._cdata) == int(other.untyped_storage()._cdata)
