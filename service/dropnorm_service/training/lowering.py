"""From an architecture to one list of layers, with dropout and batch norm in their places.

Every family is lowered to the same form: an MLP is what a Sequential of linear layers and
activations is. So where regularisation acts is decided once, in `regularized`, for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from dropnorm.spec import MLP, ActivationFunction, BatchNorm, Dropout, Regularization, TrainingSpec
from dropnorm.spec import layers as spec
from dropnorm_service.training.layers import Meeting

Place = Literal["input", "hidden", "output"]


@dataclass(frozen=True)
class Meet:
    """What ends the ways of a block.

    Attributes:
        meeting: how they meet.
        project: bring a way without layers to the shape of the others.
    """

    meeting: Meeting
    project: bool = False


@dataclass(frozen=True)
class Way:
    """One way through a block.

    Attributes:
        name: its last name in the model.
        elements: its layers; none: the input itself goes on.
    """

    name: str
    elements: tuple[Element, ...] = ()


@dataclass(frozen=True)
class Element:
    """One layer of a network, or a block of several ways.

    Attributes:
        name: dotted name of its module in the model, `hidden.0.linear`.
        layer: what it is; of a block, how its ways meet.
        field: path of the spec's field that asked for it; empty: the data did.
        ways: a block's ways.
        following: the activation that its output goes into, whose gain its weights start with.
    """

    name: str
    layer: spec.Layer | Meet
    field: str = ""
    ways: tuple[Way, ...] = ()
    following: ActivationFunction | None = None

    def setting(self, name: str) -> str:
        """Path of one of the layer's settings, in the list or in the regularization that placed it."""
        if not self.field.startswith("regularization."):
            return f"{self.field}.{name}"
        # A placed dropout's field is its rate already; a placed norm's says where it stands.
        return self.field if name == "rate" else f"{self.field.rpartition('.')[0]}.{name}"


def lower(training: TrainingSpec, outputs: int) -> tuple[Element, ...]:
    """The layers of a spec in order of execution, the output layer with `outputs` units among them.

    Flatten elements without a field stand where images become vectors; they mean nothing, and are
    left out of the model, where the data is a vector already.
    """
    architecture, regularization = training.architecture, training.regularization
    if isinstance(architecture, MLP):
        body = _mlp(architecture, regularization, outputs)
    else:
        body = _list(
            architecture.layers, regularization, "layers.", "architecture.sequential.layers"
        )
        if architecture.output_layer:
            body += [
                Element("output.flatten", spec.Flatten()),
                Element("output.linear", spec.Linear(units=outputs)),
            ]
    first = regularized(regularization, "input", "input.")
    last = regularized(regularization, "output", "output.")
    return _with_following((*first, *body, *last))


def regularized(
    regularization: Regularization, place: Place, prefix: str, activation: Element | None = None
) -> list[Element]:
    """What stands in one place: an activation (at input and output none), dropout and batch norm.

    | batch norm        | norm_then_dropout         | dropout_then_norm         |
    |-------------------|---------------------------|---------------------------|
    | before_activation | norm, activation, dropout | dropout, norm, activation |
    | after_activation  | activation, norm, dropout | activation, dropout, norm |
    | none              | activation, dropout       | activation, dropout       |

    A dropout rate of 0 is off: there is no module for it.
    """
    norm = _norm(regularization.batch_norm, place, prefix)
    dropout = _dropout(regularization.dropout, place, prefix)
    middle = [activation] if activation else []
    settings = regularization.batch_norm
    norm_leads = bool(norm) and settings is not None and settings.position == "before_activation"
    if norm and regularization.order == "dropout_then_norm":
        pair = dropout + norm
        return pair + middle if norm_leads else middle + pair
    return norm + middle + dropout if norm_leads else middle + norm + dropout


def _norm(settings: BatchNorm | None, place: Place, prefix: str) -> list[Element]:
    if settings is None or not getattr(settings, place):
        return []
    layer = spec.BatchNorm(
        momentum=settings.momentum,
        eps=settings.eps,
        affine=settings.affine,
        track_running_stats=settings.track_running_stats,
    )
    return [Element(f"{prefix}norm", layer, f"regularization.batch_norm.{place}")]


def _dropout(settings: Dropout | None, place: Place, prefix: str) -> list[Element]:
    field = "rate" if place == "hidden" else f"{place}_rate"
    if settings is None or not (rate := getattr(settings, field)):
        return []
    layer = spec.Dropout(rate=rate, rescaling=settings.rescaling)
    return [Element(f"{prefix}dropout", layer, f"regularization.dropout.{field}")]


def _mlp(mlp: MLP, regularization: Regularization, outputs: int) -> list[Element]:
    elements = [Element("input.flatten", spec.Flatten())]
    function = spec.Activation(function=mlp.activation)
    for index, width in enumerate(mlp.hidden):
        prefix = f"hidden.{index}."
        linear = spec.Linear(units=width, bias=mlp.bias)
        elements.append(Element(f"{prefix}linear", linear, f"architecture.mlp.hidden[{index}]"))
        activation = Element(f"{prefix}activation", function, "architecture.mlp.activation")
        elements += regularized(regularization, "hidden", prefix, activation)
    return [*elements, Element("output.linear", spec.Linear(units=outputs, bias=mlp.bias))]


def _list(
    layers: Sequence[spec.Layer], regularization: Regularization, prefix: str, path: str
) -> list[Element]:
    elements: list[Element] = []
    for index, layer in enumerate(layers):
        here, field = f"{prefix}{index}.", f"{path}[{index}].{layer.kind}"
        element = Element(here + _NAMES.get(layer.kind, layer.kind), layer, field)
        if isinstance(layer, spec.Activation):
            elements += regularized(regularization, "hidden", here, element)
        elif isinstance(layer, spec.Residual):
            inside = _list(
                layer.layers, regularization, f"{element.name}.layers.", f"{field}.layers"
            )
            ways = (Way("layers", tuple(inside)), Way("shortcut"))
            elements.append(replace(element, layer=Meet("add", project=True), ways=ways))
        else:
            elements.append(element)
    return elements


# A batch norm has one name, whether a list or the regularization asked for it.
_NAMES = {"batch_norm": "norm"}


def _with_following(
    elements: Iterable[Element], following: ActivationFunction | None = None
) -> tuple[Element, ...]:
    """The same elements, each knowing the activation that its output goes into.

    All ways of a block go into whatever follows it, and what stands before the block goes into the
    first of them that has layers.
    """
    reached: list[Element] = []
    for element in reversed(tuple(elements)):
        ways = tuple(
            replace(way, elements=_with_following(way.elements, following)) for way in element.ways
        )
        element = replace(element, ways=ways, following=following)
        reached.append(element)
        following = _entered(element)
    return tuple(reversed(reached))


def _entered(element: Element) -> ActivationFunction | None:
    """The activation that an element's input goes into before any weights."""
    layer = element.layer
    if isinstance(layer, spec.Activation):
        return layer.function
    if isinstance(layer, spec.Linear | spec.Conv):
        return None
    within = next((way.elements for way in element.ways if way.elements), ())
    return _entered(within[0]) if within else element.following
