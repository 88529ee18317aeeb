"""Every registered optimizer against torch's own, and in the fastest form that the device has."""

from typing import Any, get_args

import pytest
import torch
from torch import nn

from dropnorm import spec as dn
from dropnorm_service.training import build_optimizer
from dropnorm_service.training.optimizers import OPTIMIZERS

CPU = torch.device("cpu")
CASES: list[tuple[dn.Optimizer, type[torch.optim.Optimizer], dict[str, Any]]] = [
    (
        dn.SGD(lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
        torch.optim.SGD,
        {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    ),
    (dn.SGD(lr=0.05), torch.optim.SGD, {"lr": 0.05}),
    (
        dn.Adam(lr=0.01, beta1=0.8, beta2=0.95, eps=1e-6, weight_decay=0.02),
        torch.optim.Adam,
        {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.02},
    ),
    (
        dn.AdamW(lr=0.01, beta1=0.8, beta2=0.95, eps=1e-6, weight_decay=0.1),
        torch.optim.AdamW,
        {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1},
    ),
    (
        dn.RMSprop(lr=0.01, alpha=0.9, eps=1e-6, momentum=0.5, weight_decay=0.02),
        torch.optim.RMSprop,
        {"lr": 0.01, "alpha": 0.9, "eps": 1e-6, "momentum": 0.5, "weight_decay": 0.02},
    ),
    (dn.RMSprop(lr=0.01), torch.optim.RMSprop, {"lr": 0.01}),
]


def trained(optimizer: torch.optim.Optimizer, weight: nn.Parameter) -> torch.Tensor:
    for step in range(10):
        (weight * weight).sum().mul(step + 1).backward()
        optimizer.step()
        optimizer.zero_grad()
    return weight.detach()


def test_every_kind_is_registered_and_tested() -> None:
    kinds = {kind.model_fields["kind"].default for kind in get_args(get_args(dn.Optimizer)[0])}
    assert set(OPTIMIZERS) == kinds == {settings.kind for settings, _, _ in CASES}


@pytest.mark.parametrize(("settings", "kind", "options"), CASES)
def test_moves_as_torchs_own(
    settings: dn.Optimizer, kind: type[torch.optim.Optimizer], options: dict[str, Any]
) -> None:
    start = torch.linspace(-1, 1, 50)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimizer = build_optimizer(dn.Optimization(optimizer=settings), [ours], CPU)
    torch.testing.assert_close(trained(optimizer, ours), trained(kind([theirs], **options), theirs))
    assert type(optimizer) is kind


@pytest.mark.parametrize(("settings", "kind", "options"), CASES)
def test_speed_and_state(
    settings: dn.Optimizer, kind: type[torch.optim.Optimizer], options: dict[str, Any]
) -> None:
    weight = nn.Parameter(torch.ones(50))
    optimizer = build_optimizer(dn.Optimization(optimizer=settings), [weight], CPU)
    registered = OPTIMIZERS[settings.kind]
    assert optimizer.defaults.get("fused" if registered.fused else "foreach") is True
    trained(optimizer, weight)
    state = optimizer.state[weight].values()
    kept = sum(torch.is_tensor(value) and value.shape == weight.shape for value in state)
    assert kept == registered.state(settings)


def test_learning_rate_may_change_between_steps() -> None:
    weight = nn.Parameter(torch.ones(1))
    optimizer = build_optimizer(dn.Optimization(optimizer=dn.SGD(lr=1.0)), [weight], CPU)
    for rate in (0.5, 0.25):
        optimizer.param_groups[0]["lr"] = rate
        weight.grad = torch.ones(1)
        optimizer.step()
    assert weight.item() == 0.25
