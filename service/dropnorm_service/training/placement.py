"""Where the regularization of a spec puts dropout and batch norm: decided here, once, for every family."""

from __future__ import annotations

from typing import Literal

from dropnorm.spec import BatchNorm, Dropout, Regularization
from dropnorm.spec import layers as spec
from dropnorm_service.training.elements import Element

Place = Literal["input", "hidden", "output"]


def regularized(
    regularization: Regularization,
    place: Place,
    prefix: str,
    activation: Element | None = None,
    *,
    conv: bool = False,
) -> list[Element]:
    """What stands in one place: an activation (at input and output none), dropout and batch norm.

    | batch norm        | norm_then_dropout         | dropout_then_norm         |
    |-------------------|---------------------------|---------------------------|
    | before_activation | norm, activation, dropout | dropout, norm, activation |
    | after_activation  | activation, norm, dropout | activation, dropout, norm |
    | none              | activation, dropout       | activation, dropout       |

    A dropout rate of 0 is off: there is no module for it. `conv` tells the activation of a convolution,
    which may have a rate of its own.
    """
    norm = placed_norm(regularization.batch_norm, place, prefix)
    dropout = placed_dropout(regularization.dropout, place, prefix, conv=conv)
    middle = [activation] if activation else []
    settings = regularization.batch_norm
    norm_leads = bool(norm) and settings is not None and settings.position == "before_activation"
    if norm and regularization.order == "dropout_then_norm":
        pair = dropout + norm
        return pair + middle if norm_leads else middle + pair
    return norm + middle + dropout if norm_leads else middle + norm + dropout


def placed_norm(settings: BatchNorm | None, place: Place, prefix: str) -> list[Element]:
    """The norm of one place, if there is one."""
    if settings is None or not getattr(settings, place):
        return []
    layer = spec.BatchNorm(
        momentum=settings.momentum,
        eps=settings.eps,
        affine=settings.affine,
        track_running_stats=settings.track_running_stats,
    )
    return [Element(f"{prefix}norm", layer, f"regularization.batch_norm.{place}")]


def placed_dropout(
    settings: Dropout | None, place: Place, prefix: str, *, conv: bool = False
) -> list[Element]:
    """The dropout of one place, if there is one."""
    field = "rate" if place == "hidden" else f"{place}_rate"
    if conv and settings is not None and settings.conv_rate is not None:
        field = "conv_rate"
    if settings is None or not (rate := getattr(settings, field)):
        return []
    layer = spec.Dropout(rate=rate, rescaling=settings.rescaling)
    return [Element(f"{prefix}dropout", layer, f"regularization.dropout.{field}")]
