"""A network on paper: every layer with its shapes, before a module is made or memory is taken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod

from dropnorm.spec import InvalidSpecError, Problem, TrainingSpec
from dropnorm.spec import layers as spec
from dropnorm_service.training.layers import (
    BLUEPRINTS,
    Blueprint,
    DoesNotFit,
    Residual,
    Shape,
    describe,
    nest,
    shortcut,
)
from dropnorm_service.training.lowering import Element, lower

# Far more than any machine holds, and few enough that sums over a batch stay 64-bit integers.
_LIMITS = {
    "parameters": 10**12,
    "values per sample": 10**11,
    "floating-point operations per sample": 10**17,
}


@dataclass(frozen=True)
class DesignedLayer:
    """A layer in its place.

    Attributes:
        element: what it is, its name and who asked for it.
        blueprint: what it makes of its input.
        input_shape: shape of one sample before it.
        branch: a residual block's own layers.
        shortcut: the projection beside a residual block's branch; None: the input itself is added.
    """

    element: Element
    blueprint: Blueprint
    input_shape: Shape
    branch: tuple[DesignedLayer, ...] = ()
    shortcut: DesignedLayer | None = None

    def walk(self) -> Iterator[DesignedLayer]:
        """In order of execution: a block's branch, its shortcut, then the block, which adds."""
        for layer in self.branch:
            yield from layer.walk()
        if self.shortcut is not None:
            yield self.shortcut
        yield self


@dataclass(frozen=True)
class Design:
    """A network on paper.

    Attributes:
        layers: the layers in order; residual blocks hold theirs.
        input_shape: shape of one sample.
        outputs: number of classes or regression targets.
    """

    layers: tuple[DesignedLayer, ...]
    input_shape: Shape
    outputs: int

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


def design(training: TrainingSpec, input_shape: Shape, outputs: int) -> Design:
    """Lay the network of a spec out for samples of `input_shape`, `(F,)` or `(C, H, W)`.

    Raises:
        InvalidSpecError: a layer cannot take what reaches it, the last one leaves the wrong shape,
            or the network is larger than any machine could hold; the layer's field is named.
    """
    drawing = _Drawing()
    layers, shape = drawing.chain(lower(training, outputs), input_shape)
    if shape != (outputs,):
        raise _wrong_end(layers, shape, outputs)
    return Design(layers, input_shape, outputs)


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
                path = f"{element.field}.{error.field}" if error.field else element.field
                raise InvalidSpecError([Problem(path, error.message)]) from error
            layers.append(layer)
            shape = layer.blueprint.output_shape
        return tuple(layers), shape

    def _layer(self, element: Element, shape: Shape) -> DesignedLayer:
        if isinstance(element.layer, spec.Residual):
            return self._residual(element, shape)
        layer = DesignedLayer(element, BLUEPRINTS[element.layer.kind](element.layer, shape), shape)
        self._account(layer)
        return layer

    def _residual(self, element: Element, shape: Shape) -> DesignedLayer:
        branch, reached = self.chain(element.branch, shape)
        projection, beside = shortcut(shape, reached), None
        if projection is not None:
            named = replace(element, name=f"{element.name}.shortcut", branch=())
            beside = DesignedLayer(named, projection, shape)
            self._account(beside)
        total = Blueprint(
            make=partial(_make_residual, f"{element.name}.layers.", branch, projection),
            text="Add",
            output_shape=reached,
        )
        block = DesignedLayer(element, total, shape, branch, beside)
        self._account(block)
        return block

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


def _make_residual(
    prefix: str, branch: tuple[DesignedLayer, ...], projection: Blueprint | None
) -> Residual:
    named = ((layer.element.name.removeprefix(prefix), layer.blueprint.make()) for layer in branch)
    return Residual(nest(named), projection.make() if projection else None)


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
