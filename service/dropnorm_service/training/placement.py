"""Where the regularization of a spec puts dropout and batch norm: decided here, once, for every family."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from dropnorm.spec import Dropout, Regularization
from dropnorm.spec import layers as spec
from dropnorm.spec.norms import NormPlaces
from dropnorm_service.training.elements import Element, Meet
from dropnorm_service.training.layers import DropsBranch

Place = Literal["input", "hidden", "output"]

NormLayer = spec.BatchNorm | spec.LayerNorm | spec.GroupNorm | spec.InstanceNorm | spec.RMSNorm

_LAYERS: Mapping[str, type[NormLayer]] = {
    "batch_norm": spec.BatchNorm,
    "layer_norm": spec.LayerNorm,
    "group_norm": spec.GroupNorm,
    "instance_norm": spec.InstanceNorm,
    "rms_norm": spec.RMSNorm,
}


def regularized(
    regularization: Regularization,
    place: Place,
    prefix: str,
    activation: Element | None = None,
    *,
    conv: bool = False,
) -> list[Element]:
    """What stands in one place: an activation (at input and output none), dropout and batch norm.

    | norm              | norm_then_dropout         | dropout_then_norm         |
    |-------------------|---------------------------|---------------------------|
    | before_activation | norm, activation, dropout | dropout, norm, activation |
    | after_activation  | activation, norm, dropout | activation, dropout, norm |
    | none              | activation, dropout       | activation, dropout       |

    A dropout rate of 0 is off: there is no module for it. `conv` tells the activation of a convolution,
    which may have a rate of its own.
    """
    norm = placed_norm(regularization, place, prefix)
    dropout = placed_dropout(regularization.dropout, place, prefix, conv=conv)
    middle = [activation] if activation else []
    given = regularization.norm
    norm_leads = bool(norm) and given is not None and given[1].position == "before_activation"
    if norm and regularization.order == "dropout_then_norm":
        pair = dropout + norm
        return pair + middle if norm_leads else middle + pair
    return norm + middle + dropout if norm_leads else middle + norm + dropout


def placed_norm(regularization: Regularization, place: Place, prefix: str) -> list[Element]:
    """The norm of one place, if there is one."""
    if regularization.norm is None or not getattr(regularization.norm[1], place):
        return []
    name, settings = regularization.norm
    layer = _LAYERS[name].model_validate(settings.model_dump(exclude=set(NormPlaces.model_fields)))
    return [Element(f"{prefix}norm", layer, f"regularization.{name}.{place}")]


def placed_dropout(
    settings: Dropout | None, place: Place, prefix: str, *, conv: bool = False
) -> list[Element]:
    """The dropout of one place, if there is one."""
    field = "rate" if place == "hidden" else f"{place}_rate"
    return dropout_at(settings, "conv_rate" if conv else field, prefix)


def dropout_at(settings: Dropout | None, field: str, prefix: str) -> list[Element]:
    """Dropout at one of the rates, if it is on; where the rate is absent, `rate` counts."""
    if settings is None:
        return []
    if getattr(settings, field) is None:
        field = "rate"
    if not (rate := getattr(settings, field)):
        return []
    layer = spec.Dropout(rate=rate, method=settings.method, rescaling=settings.rescaling)
    return [Element(f"{prefix}dropout", layer, f"regularization.dropout.{field}")]


def recurrent_rate(settings: Dropout | None) -> tuple[float, str]:
    """What recurrent layers drop of their last step, and the field that asks for it; empty: none does."""
    rate = settings.recurrent_rate if settings else 0.0
    return rate, "regularization.dropout.recurrent_rate" if rate else ""


def with_stochastic_depth(elements: Sequence[Element], last_rate: float) -> tuple[Element, ...]:
    """The same elements, with the first way of each residual block dropped for a share of the samples.

    Block l of L, in order of execution, is dropped for `last_rate * l / L` of them: the linear rule of
    Huang et al. 2016. A block in another's branch counts before it, as it is executed before it.
    """
    if not last_rate:
        return tuple(elements)
    blocks = sum(map(_residuals, elements))
    numbers = itertools.count(1)

    def dropped(element: Element) -> Element:
        ways = tuple(
            replace(way, elements=tuple(map(dropped, way.elements))) for way in element.ways
        )
        if _is_residual(element):
            branch, *others = ways
            end = Element(
                f"{element.name}.{branch.name}.depth",
                DropsBranch(last_rate * next(numbers) / blocks),
                "regularization.dropout.stochastic_depth_rate",
            )
            ways = (replace(branch, elements=(*branch.elements, end)), *others)
        return replace(element, ways=ways)

    return tuple(map(dropped, elements))


def with_dropconnect(elements: Sequence[Element], rate: float) -> tuple[Element, ...]:
    """The same elements, with weights dropped in linear layers whose output goes into an activation.

    Of a linear layer in a list the rate of its own counts, be it 0.

    Args:
        elements: as `with_following` gave them.
        rate: share of weights dropped.
    """
    if not rate:
        return tuple(elements)

    def dropped(element: Element) -> Element:
        layer = element.layer
        if isinstance(layer, spec.Linear) and element.following and layer.dropconnect_rate is None:
            return replace(
                element,
                layer=layer.model_copy(update={"dropconnect_rate": rate}),
                rate_field="regularization.dropout.dropconnect_rate",
            )
        ways = tuple(
            replace(way, elements=with_dropconnect(way.elements, rate)) for way in element.ways
        )
        return replace(element, ways=ways)

    return tuple(map(dropped, elements))


def _residuals(element: Element) -> int:
    within = sum(_residuals(each) for way in element.ways for each in way.elements)
    return within + _is_residual(element)


def _is_residual(element: Element) -> bool:
    return isinstance(element.layer, Meet) and element.layer.meeting == "add"
