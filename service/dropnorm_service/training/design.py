"""A network on paper: every layer with its shapes, before a module is made or memory is taken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain
from math import prod

import torch
from torch import nn

from dropnorm.results import SequenceSummary
from dropnorm.spec import InvalidSpecError, Problem, TrainingSpec
from dropnorm.spec import layers as spec
from dropnorm_service.training.elements import Element, Meet, Way
from dropnorm_service.training.layers import (
    BLUEPRINTS,
    Attend,
    Attention,
    Blueprint,
    Branches,
    DoesNotFit,
    Shape,
    Side,
    attend,
    describe,
    meeting_shape,
    nest,
    shortcut,
)
from dropnorm_service.training.layout import Frame, Layout
from dropnorm_service.training.lowering import lower

# Far more than any machine holds, and few enough that sums over a batch stay 64-bit integers.
_LIMITS = {
    "parameters": 10**12,
    "values per sample": 10**11,
    "floating-point operations per sample": 10**17,
}


@dataclass(frozen=True)
class DesignedLayer:
    """A layer in its place, or a block.

    Attributes:
        element: what it is, its name and who asked for it.
        blueprint: what it makes of its input; of a block, without what its ways do.
        input_shape: shape of one sample before it.
        ways: a block's layers, way by way.
    """

    element: Element
    blueprint: Blueprint
    input_shape: Shape
    ways: tuple[tuple[DesignedLayer, ...], ...] = ()

    def walk(self) -> Iterator[DesignedLayer]:
        """In order of execution: a block's ways one after the other, then the block, where they meet."""
        for way in self.ways:
            for layer in way:
                yield from layer.walk()
        yield self


@dataclass(frozen=True)
class Design:
    """A network on paper.

    Attributes:
        parts: the layers of each part in order; blocks hold theirs.
        layout: what it was laid out from.
    """

    parts: tuple[tuple[DesignedLayer, ...], ...]
    layout: Layout

    @property
    def layers(self) -> Iterator[DesignedLayer]:
        """The layers of all parts in order of execution; blocks hold theirs."""
        return chain.from_iterable(self.parts)

    def walk(self) -> Iterator[DesignedLayer]:
        """Every layer in order of execution, nested ones too."""
        for layer in self.layers:
            yield from layer.walk()

    @property
    def parameters(self) -> int:
        """Learnable parameters."""
        return sum(layer.blueprint.parameters for layer in self.walk())

    @property
    def forward_flops(self) -> int:
        """Floating-point operations of one sample's forward pass; a multiply-add counts as two."""
        return sum(layer.blueprint.flops for layer in self.walk())

    def example(self, batch: int) -> tuple[torch.Tensor, ...]:
        """Arguments of the network's forward pass for `batch` samples, all zeros, on torch's default device."""
        return tuple(
            torch.zeros(batch, *each.shape, dtype=each.dtype) for each in self.layout.inputs
        )


def design(
    training: TrainingSpec,
    input_shape: Shape,
    outputs: int,
    sequences: SequenceSummary | None = None,
) -> Design:
    """Lay the network of a spec out for samples of `input_shape`: `(F,)`, `(C, H, W)` or a number of tokens.

    Raises:
        InvalidSpecError: a layer cannot take what reaches it, the last one leaves the wrong shape,
            or the network is larger than any machine could hold; the layer's field is named.
    """
    layout = lower(training, Frame(training.regularization, input_shape, outputs, sequences))
    drawing = _Drawing()
    parts = []
    for part in layout.parts:
        layers, shape = drawing.chain(part.elements, part.input_shape)
        if shape != part.output_shape:
            raise _wrong_end(layers, shape, outputs)
        parts.append(layers)
    return Design(tuple(parts), layout)


class _Drawing:
    """Lays layers out one after the other and keeps account of their size."""

    def __init__(self) -> None:
        self._spent = dict.fromkeys(_LIMITS, 0)

    def chain(
        self, elements: Sequence[Element], shape: Shape
    ) -> tuple[tuple[DesignedLayer, ...], Shape]:
        """Layers for elements in a row, and the shape that the last one leaves."""
        layers = []
        for element in elements:
            if isinstance(element.layer, spec.Flatten) and not element.field and len(shape) == 1:
                continue
            try:
                layer = self._layer(element, shape)
            except DoesNotFit as error:
                path = element.setting(error.field) if error.field else element.field
                raise InvalidSpecError([Problem(path, error.message)]) from error
            layers.append(layer)
            shape = layer.blueprint.output_shape
        return tuple(layers), shape

    def _layer(self, element: Element, shape: Shape) -> DesignedLayer:
        if isinstance(element.layer, Meet | Attend):
            return self._block(element, element.layer, shape)
        return self._placed(element, BLUEPRINTS[element.layer.kind](element.layer, shape), shape)

    def _block(self, element: Element, ending: Meet | Attend, shape: Shape) -> DesignedLayer:
        ways: list[tuple[DesignedLayer, ...]] = []
        reached: list[Shape] = []
        for way in element.ways:
            layers, end = self.chain(way.elements, shape)
            projects = isinstance(ending, Meet) and ending.project
            if projects and not way.elements and reached:
                layers, end = self._projection(element, way, shape, reached[0]), reached[0]
            ways.append(layers)
            reached.append(end)
        make = partial(_make_block, element, ending, ways)
        if isinstance(ending, Attend):
            paper = attend(ending, reached, make)
        else:
            kind = ending.meeting
            paper = Blueprint(
                make=make,
                text=kind,
                output_shape=shape if kind == "side" else meeting_shape(kind, reached),
            )
        return self._placed(element, paper, shape, tuple(ways))

    def _projection(
        self, element: Element, way: Way, shape: Shape, target: Shape
    ) -> tuple[DesignedLayer, ...]:
        projection = shortcut(shape, target)
        if projection is None:
            return ()
        # To those who walk the network it is a layer with weights, like any other.
        settings = (
            spec.Linear(units=target[0], bias=False)
            if len(target) == 1
            else spec.Conv(channels=target[0], kernel_size=1, bias=False)
        )
        named = replace(element, name=f"{element.name}.{way.name}", layer=settings, ways=())
        return (self._placed(named, projection, shape),)

    def _placed(
        self,
        element: Element,
        blueprint: Blueprint,
        shape: Shape,
        ways: tuple[tuple[DesignedLayer, ...], ...] = (),
    ) -> DesignedLayer:
        layer = DesignedLayer(element, blueprint, shape, ways)
        self._account(layer)
        return layer

    def _account(self, layer: DesignedLayer) -> None:
        paper = layer.blueprint
        for what, amount in zip(
            _LIMITS, (paper.parameters, prod(paper.output_shape), paper.flops), strict=True
        ):
            self._spent[what] += amount
            if self._spent[what] > _LIMITS[what]:
                text = (
                    f"with this layer, {paper.text}, the network has {self._spent[what]:.3g} "
                    f"{what}; at most {_LIMITS[what]:.0e} are accepted: make it narrower or shorter"
                )
                raise InvalidSpecError([Problem(layer.element.field or "architecture", text)])


def _make_block(
    element: Element, ending: Meet | Attend, ways: Sequence[Sequence[DesignedLayer]]
) -> nn.Module:
    prefix = f"{element.name}."
    modules: dict[str, nn.Module] = {}
    for way, layers in zip(element.ways, ways, strict=True):
        built = nest(
            (layer.element.name.removeprefix(prefix), layer.blueprint.make()) for layer in layers
        )
        modules[way.name] = built.get_submodule(way.name) if layers else nn.Identity()
    if isinstance(ending, Attend):
        return Attention(modules, **asdict(ending))
    if ending.meeting == "side":
        return Side(*modules.values())
    return Branches(ending.meeting, modules)


def _wrong_end(layers: Sequence[DesignedLayer], shape: Shape, outputs: int) -> InvalidSpecError:
    written = [layer.element for layer in layers if layer.element.field.startswith("architecture")]
    field = written[-1].field + (".units" if isinstance(written[-1].layer, spec.Linear) else "")
    return InvalidSpecError(
        [
            Problem(
                field,
                f"the last layer leaves {describe(shape)}, and the data needs {outputs} outputs; "
                f"end with a linear layer of {outputs} units, or let output_layer append it",
            )
        ]
    )
