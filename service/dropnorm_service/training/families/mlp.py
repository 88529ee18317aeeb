"""Multilayer perceptrons."""

from __future__ import annotations

from collections.abc import Sequence

from dropnorm.spec import MLP
from dropnorm.spec import layers as spec
from dropnorm_service.training.elements import Element
from dropnorm_service.training.layout import Frame
from dropnorm_service.training.placement import regularized


def mlp(settings: MLP, frame: Frame) -> Sequence[Element]:
    """Hidden layers of `linear, activation`, then a linear output layer; images are flattened."""
    elements = [Element("input.flatten", spec.Flatten())]
    function = spec.Activation(function=settings.activation)
    for index, width in enumerate(settings.hidden):
        prefix = f"hidden.{index}."
        linear = spec.Linear(units=width, bias=settings.bias)
        elements.append(Element(f"{prefix}linear", linear, f"architecture.mlp.hidden[{index}]"))
        activation = Element(f"{prefix}activation", function, "architecture.mlp.activation")
        elements += regularized(frame.regularization, "hidden", prefix, activation)
    output = spec.Linear(units=frame.outputs, bias=settings.bias)
    return [*elements, Element("output.linear", output)]
