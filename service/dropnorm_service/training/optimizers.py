"""Optimizers: which class, with which settings, in the fastest form a device has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dropnorm.spec import SGD, Adam, AdamW, Optimization, RMSprop

_FUSED_DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class OptimizerKind:
    """A kind of optimizer.

    Attributes:
        make: builds it from the spec's settings, the parameters and torch's options on speed.
        state: values it keeps per parameter under given settings.
        fused: whether torch has it as one kernel; the others run as batched operations (foreach).
    """

    make: Callable[..., torch.optim.Optimizer]
    state: Callable[[Any], int]
    fused: bool = True


def _sgd(settings: SGD, parameters: Iterable[nn.Parameter], **speed: bool) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        parameters,
        lr=settings.lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
        **speed,
    )


def _adam(
    settings: Adam | AdamW, parameters: Iterable[nn.Parameter], **speed: bool
) -> torch.optim.Optimizer:
    kind = torch.optim.AdamW if isinstance(settings, AdamW) else torch.optim.Adam
    return kind(
        parameters,
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        **speed,
    )


def _rmsprop(
    settings: RMSprop, parameters: Iterable[nn.Parameter], **speed: bool
) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(
        parameters,
        lr=settings.lr,
        alpha=settings.alpha,
        eps=settings.eps,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        **speed,
    )


OPTIMIZERS: Mapping[str, OptimizerKind] = {
    "sgd": OptimizerKind(_sgd, state=lambda settings: int(settings.momentum > 0.0)),
    "adam": OptimizerKind(_adam, state=lambda settings: 2),
    "adamw": OptimizerKind(_adam, state=lambda settings: 2),
    "rmsprop": OptimizerKind(
        _rmsprop, state=lambda settings: 1 + (settings.momentum > 0.0), fused=False
    ),
}
"""Kind in the spec -> optimizer."""


def build_optimizer(
    optimization: Optimization, parameters: Iterable[nn.Parameter], device: torch.device
) -> torch.optim.Optimizer:
    """The optimizer of a spec over parameters that are on `device`.

    Its learning rate is the spec's; a schedule sets `param_groups[...]["lr"]` before each step (see
    `schedules.learning_rate`). Weight decay acts on every parameter, as in torch.
    """
    kind = OPTIMIZERS[optimization.optimizer.kind]
    fused = kind.fused and device.type in _FUSED_DEVICES
    speed = {"fused": True} if fused else {"foreach": True}
    return kind.make(optimization.optimizer, parameters, **speed)
