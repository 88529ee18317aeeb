"""Optimizers: which class, over which groups of parameters, in the fastest form a device has."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dropnorm.spec import SGD, Adagrad, Adam, AdamW, Muon, NAdam, Optimization, RAdam, RMSprop

_FUSED_DEVICES = ("cpu", "cuda")

Group = dict[str, Any]
Groups = list[Group]
"""Parameters that share their options, as torch's optimizers take them: `params`, `weight_decay`, `lr_factor`."""


@dataclass(frozen=True)
class OptimizerKind:
    """A kind of optimizer.

    Attributes:
        make: builds it from the spec's settings, the groups of parameters and torch's options on speed.
        fused: whether torch has it as one kernel; the others run as batched operations (foreach).
    """

    make: Callable[..., torch.optim.Optimizer]
    fused: bool = False


def _sgd(settings: SGD, groups: Groups, **speed: bool) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        groups, lr=settings.lr, momentum=settings.momentum, nesterov=settings.nesterov, **speed
    )


def _adam(settings: Adam, groups: Groups, **speed: bool) -> torch.optim.Optimizer:
    betas = (settings.beta1, settings.beta2)
    return torch.optim.Adam(groups, lr=settings.lr, betas=betas, eps=settings.eps, **speed)


def _adamw(settings: AdamW | Muon, groups: Groups, **speed: bool) -> torch.optim.Optimizer:
    betas = (settings.beta1, settings.beta2)
    return torch.optim.AdamW(groups, lr=settings.lr, betas=betas, eps=settings.eps, **speed)


def _rmsprop(settings: RMSprop, groups: Groups, **speed: bool) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(
        groups,
        lr=settings.lr,
        alpha=settings.alpha,
        eps=settings.eps,
        momentum=settings.momentum,
        **speed,
    )


def _adagrad(settings: Adagrad, groups: Groups, **speed: bool) -> torch.optim.Optimizer:
    return torch.optim.Adagrad(
        groups,
        lr=settings.lr,
        lr_decay=settings.lr_decay,
        initial_accumulator_value=settings.initial_accumulator,
        eps=settings.eps,
        **speed,
    )


def _nadam(settings: NAdam, groups: Groups, **speed: bool) -> torch.optim.Optimizer:
    return torch.optim.NAdam(
        groups,
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        momentum_decay=settings.momentum_decay,
        **speed,
    )


def _radam(settings: RAdam, groups: Groups, **speed: bool) -> torch.optim.Optimizer:
    betas = (settings.beta1, settings.beta2)
    return torch.optim.RAdam(groups, lr=settings.lr, betas=betas, eps=settings.eps, **speed)


def _muon(settings: Muon, groups: Groups, **speed: bool) -> torch.optim.Optimizer:
    matrices = [group for group in groups if group["matrices"]]
    others = [group for group in groups if not group["matrices"]]
    parts: list[torch.optim.Optimizer] = []
    if matrices:
        muon = torch.optim.Muon(
            matrices,
            lr=settings.lr,
            momentum=settings.momentum,
            nesterov=settings.nesterov,
            adjust_lr_fn="match_rms_adamw",
        )
        parts.append(muon)
    if others:
        parts.append(_adamw(settings, others, **speed))
    return parts[0] if len(parts) == 1 else Joined(*parts)


OPTIMIZERS: Mapping[str, OptimizerKind] = {
    "sgd": OptimizerKind(_sgd, fused=True),
    "adam": OptimizerKind(_adam, fused=True),
    "adamw": OptimizerKind(_adamw, fused=True),
    "rmsprop": OptimizerKind(_rmsprop),
    "adagrad": OptimizerKind(_adagrad),
    "nadam": OptimizerKind(_nadam),
    "radam": OptimizerKind(_radam),
    "muon": OptimizerKind(_muon, fused=True),
}
"""Kind in the spec -> optimizer."""


def build_optimizer(
    optimization: Optimization,
    model: nn.Module,
    device: torch.device,
    *,
    lr_factors: Mapping[str, float] | None = None,
    output_layers: Collection[str] = (),
) -> torch.optim.Optimizer:
    """The optimizer of a spec over a model that is on `device`.

    Its learning rate is the spec's; before each step `set_learning_rate` sets the schedule's.

    Args:
        optimization: optimizer, and what weight decay acts on.
        model: its parameters fall into groups that share decay and factor.
        device: where the model is.
        lr_factors: factor on the learning rate by the first part of a parameter's name; 1 for all others.
        output_layers: names of the modules whose matrices are no hidden ones, as `Network.output_layers`.
    """
    settings = optimization.optimizer
    kind = OPTIMIZERS[settings.kind]
    groups = _grouped(optimization, model, lr_factors or {}, output_layers)
    # A fused optimizer takes its step and then drops it where float16 overflowed, which a decay before it would not.
    decoupled = getattr(settings, "decoupled", False) and settings.weight_decay > 0.0
    fused = kind.fused and device.type in _FUSED_DEVICES and not decoupled
    optimizer = kind.make(settings, groups, **({"fused": True} if fused else {"foreach": True}))
    if decoupled:
        for group in optimizer.param_groups:
            group["decay"], group["weight_decay"] = group["weight_decay"], 0.0
        optimizer.register_step_pre_hook(_decay)
    return optimizer


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give each group the rate times its own factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_factor"]


class Joined(torch.optim.Optimizer):
    """Optimizers of different parts of a model that act, and are saved, as one.

    Args:
        parts: the optimizers; the groups and the state of all are this one's.
    """

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self._parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._share()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # what was loaded
        self._share()

    def _share(self) -> None:
        first = 0
        for part in self._parts:
            last = first + len(part.param_groups)
            part.param_groups, part.state = self.param_groups[first:last], self.state
            first = last

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for part in self._parts:
            part.step()


def _grouped(
    optimization: Optimization,
    model: nn.Module,
    lr_factors: Mapping[str, float],
    output_layers: Collection[str],
) -> Groups:
    """The parameters by weight decay, factor of the learning rate and, for Muon, kind."""
    settings = optimization.optimizer
    embeddings = {each.weight for each in model.modules() if isinstance(each, nn.Embedding)}
    groups: dict[tuple[float, float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        first, owner = name.partition(".")[0], name.rpartition(".")[0]
        decays = parameter.ndim > 1 or optimization.decay_biases_and_norms
        matrix = (
            settings.kind == "muon"
            and parameter.ndim == 2
            and owner not in output_layers
            and parameter not in embeddings
        )
        options = (settings.weight_decay if decays else 0.0, lr_factors.get(first, 1.0), matrix)
        groups.setdefault(options, []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "lr_factor": factor, "matrices": matrices}
        for (decay, factor, matrices), parameters in groups.items()
    ]


def _decay(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Decoupled decay, `w <- (1 - lr * decay) * w`, ahead of a step (Loshchilov & Hutter 2017)."""
    for group in optimizer.param_groups:
        moved: list[Tensor] = [each.data for each in group["params"] if each.grad is not None]
        if group["decay"] and moved:
            torch._foreach_mul_(moved, 1.0 - group["lr"] * group["decay"])
