"""Every registered optimizer against torch's own, and in the fastest form that the device has."""

import copy
from typing import Any, get_args

import pytest
import torch
from tests.service.training.made import pairs, split_of
from tests.service.training.shorthand import listed, summary
from tests.service.training.test_families import SMALL
from torch import nn

from dropnorm import spec as dn
from dropnorm.results import DatasetSummary
from dropnorm.spec import layers
from dropnorm_service.training import build_model, build_optimizer
from dropnorm_service.training.memory import optimizer_state
from dropnorm_service.training.optimizers import OPTIMIZERS, Joined, set_learning_rate

CPU = torch.device("cpu")
ADAM: dict[str, Any] = {"lr": 0.01, "beta1": 0.8, "beta2": 0.95, "eps": 1e-6, "weight_decay": 0.02}
TORCHS_ADAM: dict[str, Any] = {
    "lr": 0.01,
    "betas": (0.8, 0.95),
    "eps": 1e-6,
    "weight_decay": 0.02,
}
CASES: list[tuple[dn.Optimizer, type[torch.optim.Optimizer], dict[str, Any]]] = [
    (
        dn.SGD(lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
        torch.optim.SGD,
        {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    ),
    (dn.SGD(lr=0.05), torch.optim.SGD, {"lr": 0.05}),
    (dn.Adam(**ADAM), torch.optim.Adam, TORCHS_ADAM),
    (dn.AdamW(**ADAM), torch.optim.AdamW, TORCHS_ADAM),
    (
        dn.RMSprop(lr=0.01, alpha=0.9, eps=1e-6, momentum=0.5, weight_decay=0.02),
        torch.optim.RMSprop,
        {"lr": 0.01, "alpha": 0.9, "eps": 1e-6, "momentum": 0.5, "weight_decay": 0.02},
    ),
    (dn.RMSprop(lr=0.01), torch.optim.RMSprop, {"lr": 0.01}),
    (
        dn.Adagrad(lr=0.1, lr_decay=0.1, initial_accumulator=0.5, eps=1e-6, weight_decay=0.02),
        torch.optim.Adagrad,
        {
            "lr": 0.1,
            "lr_decay": 0.1,
            "initial_accumulator_value": 0.5,
            "eps": 1e-6,
            "weight_decay": 0.02,
        },
    ),
    (
        dn.NAdam(**ADAM, momentum_decay=0.01),
        torch.optim.NAdam,
        TORCHS_ADAM | {"momentum_decay": 0.01},
    ),
    (
        dn.NAdam(**ADAM, decoupled=True),
        torch.optim.NAdam,
        TORCHS_ADAM | {"decoupled_weight_decay": True},
    ),
    (dn.RAdam(**ADAM), torch.optim.RAdam, TORCHS_ADAM),
    (
        dn.RAdam(**ADAM, decoupled=True),
        torch.optim.RAdam,
        TORCHS_ADAM | {"decoupled_weight_decay": True},
    ),
]
each_case = pytest.mark.parametrize(("settings", "kind", "options"), CASES)


def linear() -> nn.Linear:
    layer = nn.Linear(10, 5)
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, generator=torch.Generator().manual_seed(3))
    return layer


def optimizer_of(settings: dn.Optimizer, model: nn.Module, **more: Any) -> torch.optim.Optimizer:
    return build_optimizer(dn.Optimization(optimizer=settings, **more), model, CPU)


def size_of(model: nn.Module) -> torch.Tensor:
    return torch.stack([each.square().sum() for each in model.parameters()]).sum()


def trained(
    optimizer: torch.optim.Optimizer, model: nn.Module, steps: int = 10
) -> list[torch.Tensor]:
    for step in range(steps):
        loss = size_of(model)
        (loss * (step + 1)).backward()
        optimizer.step()
        optimizer.zero_grad()
    return [each.detach().clone() for each in model.parameters()]


def test_every_kind_is_registered_and_tested() -> None:
    kinds = {kind.model_fields["kind"].default for kind in get_args(get_args(dn.Optimizer)[0])}
    assert set(OPTIMIZERS) == kinds == {settings.kind for settings, _, _ in CASES} | {"muon"}


@each_case
def test_moves_as_torchs_own(
    settings: dn.Optimizer, kind: type[torch.optim.Optimizer], options: dict[str, Any]
) -> None:
    ours, theirs = linear(), linear()
    optimizer = optimizer_of(settings, ours)
    groups: list[dict[str, Any]] = [
        {"params": [theirs.weight]},
        {"params": [theirs.bias], "weight_decay": 0.0},
    ]
    expected = trained(kind(groups, **options), theirs)
    torch.testing.assert_close(trained(optimizer, ours), expected)
    assert type(optimizer) is kind


@each_case
def test_speed_and_state(
    settings: dn.Optimizer, kind: type[torch.optim.Optimizer], options: dict[str, Any]
) -> None:
    layer = linear()
    optimizer = optimizer_of(settings, layer)
    fused = OPTIMIZERS[settings.kind].fused
    assert optimizer.defaults.get("fused" if fused else "foreach") is True
    trained(optimizer, layer)
    kept = sum(
        value.nbytes
        for parameter, values in optimizer.state.items()
        for value in values.values()
        if torch.is_tensor(value) and value.shape == parameter.shape
    )
    paper = copy.deepcopy(layer).to("meta")
    assert optimizer_state(dn.Optimization(optimizer=settings), paper) == kept


def test_learning_rate_may_change_between_steps() -> None:
    layer = linear()
    start = layer.weight.detach().clone()
    optimizer = optimizer_of(dn.SGD(lr=1.0), layer)
    for rate in (0.5, 0.25):
        set_learning_rate(optimizer, rate)
        layer.weight.grad = torch.ones_like(layer.weight)
        optimizer.step()
    torch.testing.assert_close(layer.weight.detach(), start - 0.75)


def test_each_group_has_its_factor_on_the_learning_rate() -> None:
    model = nn.ModuleDict({"generator": linear(), "discriminator": linear()})
    optimization = dn.Optimization(optimizer=dn.AdamW())
    optimizer = build_optimizer(optimization, model, CPU, lr_factors={"discriminator": 4.0})
    set_learning_rate(optimizer, 0.1)
    found = {
        name: group["lr"]
        for name, parameter in model.named_parameters()
        for group in optimizer.param_groups
        if any(parameter is each for each in group["params"])
    }
    assert found == {
        "generator.weight": 0.1,
        "generator.bias": 0.1,
        "discriminator.weight": 0.4,
        "discriminator.bias": 0.4,
    }


@pytest.mark.parametrize(
    ("settings", "kind", "options"),
    [
        (dn.SGD(lr=0.05, momentum=0.9, weight_decay=0.1), torch.optim.SGD, {"momentum": 0.9}),
        (dn.RMSprop(lr=0.05, weight_decay=0.1), torch.optim.RMSprop, {}),
        (dn.Adagrad(lr=0.05, weight_decay=0.1), torch.optim.Adagrad, {}),
    ],
)
def test_decoupled_decay_takes_its_share_off_the_weights_alone(
    settings: Any, kind: Any, options: dict[str, Any]
) -> None:
    ours, theirs = linear(), linear()
    optimizer = optimizer_of(settings.model_copy(update={"decoupled": True}), ours)
    plain = kind(theirs.parameters(), lr=0.05, **options)
    for step in range(5):
        for each, model in ((optimizer, ours), (plain, theirs)):
            model.weight.grad = torch.full_like(model.weight, step - 1.0)
            if each is plain:
                theirs.weight.data *= 1.0 - 0.05 * 0.1
            each.step()
    torch.testing.assert_close(ours.weight, theirs.weight)
    assert torch.equal(ours.bias, theirs.bias)  # no gradient: neither step nor decay


@pytest.mark.parametrize("include", [False, True])
def test_decay_spares_biases_and_norms_unless_told_otherwise(include: bool) -> None:
    spec = listed(
        layers.Conv(channels=4),
        layers.BatchNorm(),
        layers.GroupNorm(groups=2),
        layers.LayerNorm(),
        layers.InstanceNorm(affine=True),
        layers.RMSNorm(),
        layers.Activation(),
    )
    model = build_model(spec, (2, 6, 6), 3)
    optimizer = optimizer_of(dn.AdamW(weight_decay=0.1), model, decay_biases_and_norms=include)
    decayed = {
        name
        for name, parameter in model.named_parameters()
        for group in optimizer.param_groups
        if group["weight_decay"] and any(parameter is each for each in group["params"])
    }
    weights = {"layers.0.conv.weight", "output.linear.weight"}
    assert decayed == (set(dict(model.named_parameters())) if include else weights)


class Words(nn.Module):
    """A parameter of each kind that Muon treats in its own way."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.embedding = nn.Embedding(7, 6)
        self.hidden = nn.Linear(6, 4)
        self.conv = nn.Conv2d(2, 3, 3)
        self.output = nn.Linear(4, 5)


def test_muon_moves_hidden_matrices_and_adamw_the_rest_as_torchs_own() -> None:
    ours, theirs = Words(), Words()
    settings = dn.Muon(lr=0.02, momentum=0.9, beta1=0.8, beta2=0.95, eps=1e-6, weight_decay=0.3)
    optimizer = build_optimizer(
        dn.Optimization(optimizer=settings), ours, CPU, output_layers=["output"]
    )
    groups: list[dict[str, Any]] = [
        {"params": [theirs.embedding.weight, theirs.conv.weight, theirs.output.weight]},
        {
            "params": [theirs.hidden.bias, theirs.conv.bias, theirs.output.bias],
            "weight_decay": 0.0,
        },
    ]
    muon = torch.optim.Muon(
        [theirs.hidden.weight],
        lr=0.02,
        momentum=0.9,
        weight_decay=0.3,
        adjust_lr_fn="match_rms_adamw",
    )
    adamw = torch.optim.AdamW(groups, **TORCHS_ADAM | {"lr": 0.02, "weight_decay": 0.3})
    for step in range(5):
        for model in (ours, theirs):
            (size_of(model) * (step - 1.5)).backward()
        for each in (optimizer, muon, adamw):
            each.step()
            each.zero_grad()
    for mine, yours in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, yours)


def moved_by_muon(spec: dn.TrainingSpec, data: DatasetSummary) -> set[str]:
    with torch.device("meta"):
        model = build_model(spec, data.input_shape, data.outputs, data.sequences)
    optimizer = build_optimizer(
        spec.optimization, model, torch.device("meta"), output_layers=model.output_layers
    )
    matrices = {
        each for group in optimizer.param_groups if group["matrices"] for each in group["params"]
    }
    return {name for name, parameter in model.named_parameters() if parameter in matrices}


def test_muon_goes_by_where_a_layer_stands_and_not_by_its_name() -> None:
    muon: dict[str, Any] = {"optimization": dn.Optimization(optimizer=dn.Muon())}
    chain = (layers.Linear(units=8), layers.Activation(), layers.Linear(units=3))
    bare = listed(*chain, layers.BatchNorm(), output_layer=False, **muon)
    assert moved_by_muon(bare, summary(6, outputs=3)) == {"layers.0.linear.weight"}
    ends = (chain[0], layers.Residual(layers=chain[:2] + chain[:1]))
    both = listed(layers.Linear(units=8), *ends, output_layer=False, **muon)
    assert moved_by_muon(both, summary(6, outputs=8)) == {
        "layers.0.linear.weight",
        "layers.2.residual.layers.0.linear.weight",
    }
    spec = dn.TrainingSpec(
        architecture=dn.Transformer(width=8, heads=2, encoder_layers=1, decoder_layers=1),
        data=dn.Data(dataset="made"),
        **muon,
    )
    data = split_of(spec, pairs()).summary
    for tied in (False, True):
        settings = spec.architecture.model_copy(update={"tied_output": tied})
        found = moved_by_muon(spec.model_copy(update={"architecture": settings}), data)
        assert "encoder.layers.0.attention.sum.branch.output.weight" in found
        assert "decoder.layers.0.feed_forward.sum.branch.output.weight" in found
        assert not any("scores" in name or "tokens" in name for name in found)


def test_muon_leaves_the_ends_of_auxiliary_heads_to_adamw() -> None:
    spec = dn.TrainingSpec(
        architecture=dn.GoogLeNet(width=0.1, auxiliary_heads=True),
        optimization=dn.Optimization(optimizer=dn.Muon()),
        data=dn.Data(dataset="made"),
    )
    found = moved_by_muon(spec, summary(1, 32, 32))
    assert found
    assert all("classifier" in name for name in found)


def test_joined_optimizers_are_saved_and_loaded_as_one() -> None:
    first, second = Words(), Words()
    optimizer, other = (optimizer_of(dn.Muon(), model) for model in (first, second))
    assert isinstance(optimizer, Joined)
    trained(optimizer, first, steps=3)
    second.load_state_dict(first.state_dict())
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for mine, yours in zip(trained(optimizer, first), trained(other, second), strict=True):
        assert torch.equal(mine, yours)


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("architecture", [*SMALL.values(), dn.GAN(width=8), dn.VAE()], ids=str)
def test_every_optimizer_keeps_at_most_two_values_per_weight(
    kind: str, architecture: dn.Architecture
) -> None:
    """Of every family, on paper: each parameter is in one group and gets its step."""
    optimization = dn.Optimization.model_validate({"optimizer": {"kind": kind}})
    spec = dn.TrainingSpec(
        architecture=architecture, optimization=optimization, data=dn.Data(dataset="digits")
    )
    with torch.device("meta"):
        model = build_model(spec, (1, 32, 32), 10)
    weights = sum(each.nbytes for each in model.parameters())
    grouped = build_optimizer(optimization, model, torch.device("meta")).param_groups
    assert sum(each.nbytes for group in grouped for each in group["params"]) == weights
    assert optimizer_state(optimization, model) <= 2 * weights


def test_muon_without_matrices_is_adamw() -> None:
    assert type(optimizer_of(dn.Muon(), nn.BatchNorm1d(3))) is torch.optim.AdamW
