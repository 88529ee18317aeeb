"""Where dropout and batch norm stand in the built model, in every position and order."""

from typing import Any, Literal

import pytest
import torch
from tests.service.training.shorthand import listed, mlp, summary
from torch import nn

from dropnorm import spec as dn
from dropnorm.spec import layers
from dropnorm_service.training import build_model, plan
from dropnorm_service.training.layers import Dropout, StochasticDepth

Order = Literal["norm_then_dropout", "dropout_then_norm"]
Position = Literal["before_activation", "after_activation"]

HIDDEN = [
    ("before_activation", "norm_then_dropout", ["norm", "activation", "dropout"]),
    ("after_activation", "norm_then_dropout", ["activation", "norm", "dropout"]),
    ("before_activation", "dropout_then_norm", ["dropout", "norm", "activation"]),
    ("after_activation", "dropout_then_norm", ["activation", "dropout", "norm"]),
]


def both(position: Position, order: Order, **batch_norm: Any) -> dn.Regularization:
    return dn.Regularization(
        dropout=dn.Dropout(rate=0.5),
        batch_norm=dn.BatchNorm(position=position, **batch_norm),
        order=order,
    )


def parts(model: nn.Module, name: str) -> list[str]:
    return [child for child, _ in model.get_submodule(name).named_children()]


@pytest.mark.parametrize(("position", "order", "expected"), HIDDEN)
def test_hidden_layer_of_an_mlp(position: Position, order: Order, expected: list[str]) -> None:
    model = build_model(mlp(8, 4, regularization=both(position, order)), (6,), 3)
    assert parts(model, "hidden.0") == ["linear", *expected]
    assert parts(model, "hidden.1") == ["linear", *expected]
    assert parts(model, "output") == ["linear"]


@pytest.mark.parametrize(("position", "order", "expected"), HIDDEN)
def test_activation_in_a_list_and_in_a_branch(
    position: Position, order: Order, expected: list[str]
) -> None:
    branch = layers.Residual(layers=(layers.Linear(units=8), layers.Activation()))
    spec = listed(
        layers.Linear(units=8),
        layers.Activation(),
        branch,
        regularization=both(position, order),
    )
    model = build_model(spec, (6,), 3)
    assert parts(model, "layers.0") == ["linear"]
    assert parts(model, "layers.1") == expected
    assert parts(model, "layers.2.residual.layers.1") == expected


@pytest.mark.parametrize("order", ["norm_then_dropout", "dropout_then_norm"])
@pytest.mark.parametrize("position", ["before_activation", "after_activation"])
def test_input_and_output(position: Position, order: Order) -> None:
    regularization = dn.Regularization(
        dropout=dn.Dropout(rate=0.0, input_rate=0.1, output_rate=0.2),
        batch_norm=dn.BatchNorm(input=True, hidden=False, output=True, position=position),
        order=order,
    )
    pair = ["norm", "dropout"] if order == "norm_then_dropout" else ["dropout", "norm"]
    for spec in (
        mlp(8, regularization=regularization),
        listed(layers.Linear(units=8), layers.Activation(), regularization=regularization),
    ):
        model = build_model(spec, (6,), 3)
        assert parts(model, "input") == pair
        assert parts(model, "output") == ["linear", *pair]
        rates = [m.rate for m in model.modules() if isinstance(m, Dropout)]
        assert rates == [0.1, 0.2]


@pytest.mark.parametrize("order", ["norm_then_dropout", "dropout_then_norm"])
def test_either_alone_stands_the_same_in_both_orders(order: Order) -> None:
    dropout = dn.Regularization(dropout=dn.Dropout(rate=0.5), order=order)
    norm = dn.Regularization(batch_norm=dn.BatchNorm(), order=order)
    model = build_model(mlp(8, regularization=dropout), (6,), 3)
    assert parts(model, "hidden.0") == ["linear", "activation", "dropout"]
    model = build_model(mlp(8, regularization=norm), (6,), 3)
    assert parts(model, "hidden.0") == ["linear", "norm", "activation"]


def test_a_rate_of_zero_places_nothing() -> None:
    for rescaling in ("inverted", "at_inference", "l2_norm"):
        dropout = dn.Dropout(rate=0.0, rescaling=rescaling)
        model = build_model(mlp(8, regularization=dn.Regularization(dropout=dropout)), (6,), 3)
        assert not any(isinstance(module, Dropout) for module in model.modules())


def test_layers_named_in_a_list_stand_besides_what_is_placed() -> None:
    spec = listed(
        layers.Linear(units=8),
        layers.BatchNorm(momentum=0.3),
        layers.Activation(),
        layers.Dropout(rate=0.3, rescaling="l2_norm"),
        regularization=both("before_activation", "norm_then_dropout"),
    )
    model = build_model(spec, (6,), 3)
    assert [parts(model, f"layers.{i}") for i in range(4)] == [
        ["linear"],
        ["norm"],
        ["norm", "activation", "dropout"],
        ["dropout"],
    ]
    assert repr(model.get_submodule("layers.3.dropout")) == (
        "Dropout(rate=0.3, method=unit, rescaling=l2_norm)"
    )


def test_settings_reach_every_place() -> None:
    regularization = dn.Regularization(
        dropout=dn.Dropout(rate=0.1, input_rate=0.1, output_rate=0.1, rescaling="at_inference"),
        batch_norm=dn.BatchNorm(
            input=True,
            output=True,
            momentum=0.25,
            eps=1e-3,
            affine=False,
        ),
    )
    model = build_model(mlp(8, regularization=regularization), (6,), 3)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d)]
    assert [norm.num_features for norm in norms] == [6, 8, 3]
    for norm in norms:
        assert (norm.momentum, norm.eps) == (0.25, 1e-3)
        assert norm.weight is None
    dropouts = [module for module in model.modules() if isinstance(module, Dropout)]
    assert [module.rescaling for module in dropouts] == ["at_inference"] * 3


def test_a_norm_without_running_statistics_has_none() -> None:
    batch_norm = dn.BatchNorm(track_running_stats=False)
    model = build_model(mlp(8, regularization=dn.Regularization(batch_norm=batch_norm)), (6,), 3)
    (norm,) = (module for module in model.modules() if isinstance(module, nn.BatchNorm1d))
    assert norm.running_mean is None


def test_images_are_normalised_by_channel_until_they_are_flat() -> None:
    regularization = dn.Regularization(batch_norm=dn.BatchNorm(input=True))
    spec = listed(
        layers.Conv(channels=5),
        layers.Activation(),
        layers.Flatten(),
        layers.Linear(units=7),
        layers.Activation(),
        regularization=regularization,
    )
    model = build_model(spec, (3, 4, 4), 2)
    shapes = {
        name: (type(module), module.num_features)
        for name, module in model.named_modules()
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
    }
    assert shapes == {
        "input.norm": (nn.BatchNorm2d, 3),
        "layers.1.norm": (nn.BatchNorm2d, 5),
        "layers.4.norm": (nn.BatchNorm1d, 7),
    }


def test_an_mlp_is_the_same_network_as_its_list() -> None:
    regularization = both("after_activation", "dropout_then_norm", input=True, output=True)
    as_list = listed(
        layers.Linear(units=8),
        layers.Activation(function="tanh"),
        layers.Linear(units=4),
        layers.Activation(function="tanh"),
        regularization=regularization,
    )
    as_mlp = mlp(8, 4, activation="tanh", regularization=regularization)
    x = torch.randn(5, 6)
    results = []
    for spec in (as_mlp, as_list):
        torch.manual_seed(0)
        results.append(build_model(spec, (6,), 3)(x))
    assert torch.equal(*results)


def test_convolutions_may_have_a_rate_of_their_own() -> None:
    def rates(spec: dn.TrainingSpec) -> list[float]:
        model = build_model(spec, (1, 16, 16), 3)
        return [module.rate for module in model.modules() if isinstance(module, Dropout)]

    network = (
        layers.Conv(channels=4),
        layers.Activation(),
        layers.Pool(),
        layers.Activation(),
        layers.Flatten(),
        layers.Linear(units=8),
        layers.Activation(),
    )
    classifier = dn.Regularization(dropout=dn.Dropout(rate=0.5, conv_rate=0.0))
    both = dn.Regularization(dropout=dn.Dropout(rate=0.5, conv_rate=0.1))
    assert rates(listed(*network, regularization=classifier)) == [0.5]
    assert rates(listed(*network, regularization=both)) == [0.1, 0.1, 0.5]
    preactivated = layers.Residual(layers=(layers.Activation(), layers.Conv(channels=4)))
    spec = listed(layers.Conv(channels=4), preactivated, regularization=both)
    assert rates(spec) == [0.1]
    alexnet = dn.AlexNet(channels=(4, 4, 4, 4, 4), hidden=(8, 8))
    paper = listed(*network, regularization=classifier).model_copy(update={"architecture": alexnet})
    assert rates(paper) == [0.5, 0.5]
    googlenet = dn.GoogLeNet(width=0.125, auxiliary_heads=False)
    assert rates(paper.model_copy(update={"architecture": googlenet})) == [0.5]


@pytest.mark.parametrize("method", ["unit", "spatial", "gaussian", "alpha"])
def test_the_method_is_that_of_every_place(method: Any) -> None:
    dropout = dn.Dropout(rate=0.1, input_rate=0.2, output_rate=0.3, method=method)
    spec = mlp(8, regularization=dn.Regularization(dropout=dropout))
    modules = [m for m in build_model(spec, (6,), 3).modules() if isinstance(m, Dropout)]
    assert [(module.rate, module.method) for module in modules] == [
        (0.2, method),
        (0.1, method),
        (0.3, method),
    ]


def test_stochastic_depth_grows_linearly_over_the_residual_branches() -> None:
    dropout = dn.Dropout(rate=0.0, stochastic_depth_rate=0.4)
    regularization = dn.Regularization(dropout=dropout)
    branch = layers.Residual(layers=(layers.Linear(units=6),))
    around = layers.Residual(layers=(branch, layers.Linear(units=6)))
    spec = listed(branch, around, branch, regularization=regularization)

    def rates(spec: dn.TrainingSpec, *shape: int) -> dict[str, float]:
        named = build_model(spec, shape, 3).named_modules()
        return {name: m.rate for name, m in named if isinstance(m, StochasticDepth)}

    assert rates(spec, 6) == pytest.approx(
        {
            "layers.0.residual.layers.depth": 0.1,
            "layers.1.residual.layers.0.residual.layers.depth": 0.2,
            "layers.1.residual.layers.depth": 0.3,
            "layers.2.residual.layers.depth": 0.4,
        }
    )
    resnet = spec.model_copy(update={"architecture": dn.ResNet(blocks=(1, 1), squeeze=4, width=8)})
    assert rates(resnet, 1, 8, 8) == pytest.approx(
        {"stages.0.0.sum.branch.depth": 0.2, "stages.1.0.sum.branch.depth": 0.4}
    )
    without = spec.model_copy(update={"architecture": dn.MLP(hidden=(4,))})
    found = [(lint.code, lint.field) for lint in plan(without, summary(6)).lints]
    field = "regularization.dropout.stochastic_depth_rate"
    assert ("REGULARIZATION_WITHOUT_EFFECT", field) in found


def test_a_dropped_branch_leaves_the_shortcut() -> None:
    dropout = dn.Dropout(rate=0.0, stochastic_depth_rate=0.999)
    spec = listed(
        layers.Residual(layers=(layers.Linear(units=6),)),
        regularization=dn.Regularization(dropout=dropout),
    )
    block = build_model(spec, (6,), 3).get_submodule("layers.0.residual")
    x = torch.randn(20, 6)
    torch.manual_seed(0)
    assert (block.train()(x) == x).all(dim=1).sum() >= 18
    assert not (block.eval()(x) == x).any()


def test_rescaling_is_for_methods_that_need_it() -> None:
    with pytest.raises(ValueError, match="gaussian dropout keeps the mean by itself"):
        dn.Dropout(rate=0.1, method="gaussian", rescaling="l2_norm")
