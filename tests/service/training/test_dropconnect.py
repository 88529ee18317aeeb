"""DropConnect: dropped weights against a product written out here, and where the regularization puts it."""

import torch
from tests.service.training.shorthand import listed, mlp, summary
from torch import Tensor, nn

from dropnorm import spec as dn
from dropnorm.spec import layers
from dropnorm_service.training import build_model, plan
from dropnorm_service.training.layers.dropout import DropConnect

HALF = dn.Regularization(dropout=dn.Dropout(rate=0.0, dropconnect_rate=0.5))


def rates(spec: dn.TrainingSpec, *shape: int) -> dict[str, float]:
    """The rate of each linear layer; 0 where it is torch's own."""
    modules = build_model(spec, shape, 3).named_modules()
    return {
        name: module.rate if isinstance(module, DropConnect) else 0.0
        for name, module in modules
        if isinstance(module, nn.Linear)
    }


def test_training_drops_weights_and_not_biases() -> None:
    layer, x = DropConnect(40, 30, 0.25), torch.randn(5, 40)
    torch.manual_seed(3)
    y = layer(x)
    torch.manual_seed(3)
    mask = torch.empty(30, 40).bernoulli_(0.75)
    assert 0.2 < 1 - mask.mean() < 0.3
    torch.testing.assert_close(y, x @ (layer.weight * mask / 0.75).T + layer.bias)


def test_evaluation_has_the_mean_of_what_training_gives() -> None:
    layer, x = DropConnect(8, 4, 0.5), torch.randn(3, 8)
    torch.manual_seed(0)
    with torch.no_grad():
        mean = torch.stack([layer(x) for _ in range(20_000)]).mean(dim=0)
    expected = nn.functional.linear(x, layer.weight, layer.bias)
    torch.testing.assert_close(mean, expected, atol=0.05, rtol=0.0)
    assert torch.equal(layer.eval()(x), expected)


def test_a_rate_of_0_is_a_linear_layer_down_to_the_random_numbers() -> None:
    layer, x = DropConnect(4, 2, 0.0, bias=False), torch.randn(3, 4)
    before = torch.get_rng_state()
    assert torch.equal(layer(x), nn.functional.linear(x, layer.weight))
    assert torch.equal(torch.get_rng_state(), before)


def test_gradients_by_finite_differences() -> None:
    layer = DropConnect(4, 3, 0.4).double()
    x = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)

    def apply(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        torch.manual_seed(1)
        y: Tensor = torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x,))
        return y

    assert torch.autograd.gradcheck(apply, (x, layer.weight, layer.bias))


def test_it_is_put_where_an_activation_follows() -> None:
    assert rates(mlp(8, 8, regularization=HALF), 4) == {
        "hidden.0.linear": 0.5,
        "hidden.1.linear": 0.5,
        "output.linear": 0.0,
    }
    normed = HALF.model_copy(update={"batch_norm": dn.BatchNorm()})
    assert rates(mlp(8, regularization=normed), 4)["hidden.0.linear"] == 0.5


def test_a_list_may_have_rates_of_its_own() -> None:
    spec = listed(
        layers.Linear(units=4, dropconnect_rate=0.0),
        layers.Activation(),
        layers.Residual(layers=(layers.Linear(units=4), layers.Activation())),
        layers.Linear(units=4, dropconnect_rate=0.2),
        regularization=HALF,
    )
    assert list(rates(spec, 4).values()) == [0.0, 0.5, 0.2, 0.0]


def test_counts_stay_and_plan_shows_it() -> None:
    plain, dropped = (
        plan(mlp(8, regularization=each), summary(4)) for each in (dn.Regularization(), HALF)
    )
    assert (dropped.parameters, dropped.forward_flops) == (plain.parameters, plain.forward_flops)
    assert dropped.layers[0].type == "Linear(4 -> 8), weights dropped 0.5"
    ramp = dn.Regularization(
        dropout=dn.Dropout(rate=0.0, dropconnect_rate=0.5, schedule=dn.LinearDropoutSchedule())
    )
    row = plan(mlp(8, regularization=ramp), summary(4)).layers[0]
    assert row.type.endswith("weights dropped 0.5, times 0 at first and 1 at last")


def test_weights_start_alike_with_and_without_it() -> None:
    models = []
    for regularization in (dn.Regularization(), HALF):
        torch.manual_seed(0)
        models.append(build_model(mlp(8, regularization=regularization), (4,), 3).state_dict())
    assert models[0].keys() == models[1].keys()
    for name, weight in models[0].items():
        assert torch.equal(weight, models[1][name])
