"""Lints about how units are dropped and where norms stand, in networks where it makes no difference."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from dropnorm.results import Lint
from dropnorm.spec import layers as spec
from dropnorm_service.training.design import DesignedLayer
from dropnorm_service.training.layers import Attend
from dropnorm_service.training.lints.flow import chains, in_one_place
from dropnorm_service.training.lints.subject import Subject, over_fields
from dropnorm_service.training.placement import NormLayer

_CODE = "REGULARIZATION_WITHOUT_EFFECT"


def idle_order(subject: Subject) -> Iterator[Lint]:
    """An order of dropout and norm that are nowhere next to each other; transformers have a rule of their own."""
    if subject.training.regularization.order == "norm_then_dropout" or _attends(subject):
        return
    if not any(
        isinstance(first.element.layer, spec.Dropout)
        and isinstance(second.element.layer, NormLayer)
        and in_one_place(first.element, second.element)
        for chain in chains(subject.paper)
        for first, second in pairwise(chain)
    ):
        yield Lint(
            code=_CODE,
            field="regularization.order",
            message="dropout and a norm meet nowhere in this network, so that neither comes first; give both, or leave "
            "order out",
        )


def idle_norm(subject: Subject) -> Iterator[Lint]:
    """A norm without a place, or a position without the places that it is about."""
    given = subject.training.regularization.norm
    if given is None or given[1].hidden or _attends(subject):
        return  # of a transformer this takes the norms away that it has by itself
    name, norm = given
    if not (norm.input or norm.output):
        yield Lint(
            code=_CODE,
            field=f"regularization.{name}.hidden",
            message="neither input, hidden layers nor output are normalised; choose one of them, or leave the norm out",
        )
    elif norm.position != "before_activation":
        yield Lint(
            code=_CODE,
            field=f"regularization.{name}.position",
            message="this is about hidden layers, and they are not normalised; set hidden, or leave it out",
        )


def idle_form(subject: Subject) -> Iterator[Lint]:
    """A method or a rescaling of dropout that no layer of the network has; attention has always the usual ones."""
    dropout = subject.training.regularization.dropout
    if dropout is None:
        return
    placed = [
        layer.element.layer
        for layer in subject.paper.walk()
        if isinstance(layer.element.layer, spec.Dropout) and _is_placed(layer)
    ]
    usual = {name: type(dropout).model_fields[name].default for name in ("method", "rescaling")}
    yield from over_fields(
        _CODE,
        [
            f"regularization.dropout.{name}"
            for name, default in usual.items()
            if getattr(dropout, name) != default
            and not any(getattr(each, name) == getattr(dropout, name) for each in placed)
        ],
        "this says how units are dropped, and no units are, the weights of attention going singly and inverted "
        "whatever it says; give a rate, or leave it out",
    )


def idle_spatial_dropout(subject: Subject) -> Iterator[Lint]:
    """Dropout of whole channels where there are none."""
    spatial = [
        layer
        for layer in subject.paper.walk()
        if isinstance(layer.element.layer, spec.Dropout) and layer.element.layer.method == "spatial"
    ]
    listed = [layer for layer in spatial if not _is_placed(layer)]
    placed = [layer for layer in spatial if _is_placed(layer)]
    alone = [layer for layer in listed if len(layer.input_shape) == 1]
    if all(len(layer.input_shape) == 1 for layer in placed):
        alone = placed + alone
    yield from over_fields(
        _CODE,
        [layer.element.setting("method") for layer in alone],
        "the values of a feature vector are channels of one value each, so that spatial is the same as unit; leave "
        "method out",
    )


def alpha_without_selu(subject: Subject) -> Iterator[Lint]:
    """Dropout to the saturation of an activation that the network does not have."""
    elements = [layer.element for layer in subject.paper.walk()]
    if any(
        isinstance(each.layer, spec.Activation) and each.layer.function == "selu"
        for each in elements
    ):
        return
    yield from over_fields(
        "ALPHA_DROPOUT_WITHOUT_SELU",
        [
            each.setting("method")
            for each in elements
            if isinstance(each.layer, spec.Dropout) and each.layer.method == "alpha"
        ],
        "alpha dropout sets units to the negative saturation of SELU (Klambauer et al. 2017), and no activation of the "
        "network is selu; choose it, or another method",
    )


def _is_placed(layer: DesignedLayer) -> bool:
    """Whether the regularization put it there, and not a list."""
    return layer.element.field.startswith("regularization.")


def _attends(subject: Subject) -> bool:
    return any(isinstance(layer.element.layer, Attend) for layer in subject.paper.walk())
