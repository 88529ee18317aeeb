"""Networks written as a list of layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dropnorm.spec import Regularization, Sequential
from dropnorm.spec import layers as spec
from dropnorm.spec.norms import NORMS
from dropnorm_service.training.elements import Element, Meet, Way
from dropnorm_service.training.layout import Frame
from dropnorm_service.training.placement import regularized

# A norm has one name, whether a list or the regularization asked for it.
_NAMES = dict.fromkeys(NORMS, "norm")


def sequential(settings: Sequential, frame: Frame) -> Sequence[Element]:
    """The layers of the list, and the output layer where it is not the list's own."""
    body = _listed(
        settings.layers, frame.regularization, "layers.", "architecture.sequential.layers"
    )
    if settings.output_layer:
        body += [
            Element("output.flatten", spec.Flatten()),
            Element("output.linear", spec.Linear(units=frame.outputs)),
        ]
    return body


def _listed(
    layers: Sequence[spec.Layer],
    regularization: Regularization,
    prefix: str,
    path: str,
    *,
    conv: bool = False,
) -> list[Element]:
    """Layers of a list or a branch; `conv` says whether a convolution is the last with weights before it."""
    elements: list[Element] = []
    for index, layer in enumerate(layers):
        conv = isinstance(layer, spec.Conv) or (conv and not isinstance(layer, spec.Linear))
        here, field = f"{prefix}{index}.", f"{path}[{index}].{layer.kind}"
        element = Element(here + _NAMES.get(layer.kind, layer.kind), layer, field)
        if isinstance(layer, spec.Activation):
            elements += regularized(regularization, "hidden", here, element, conv=conv)
        elif isinstance(layer, spec.Residual):
            inside = _listed(
                layer.layers,
                regularization,
                f"{element.name}.layers.",
                f"{field}.layers",
                conv=conv,
            )
            ways = (Way("layers", tuple(inside)), Way("shortcut"))
            elements.append(replace(element, layer=Meet("add", project=True), ways=ways))
        else:
            elements.append(element)
    return elements
