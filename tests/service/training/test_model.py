"""Building models: names, fields, errors with paths, and the same numbers as a network written by hand."""

import copy

import pytest
import torch
import torch.nn.functional as F
from tests.service.training.shorthand import listed, mlp, problems
from torch import nn

from dropnorm import spec as dn
from dropnorm.spec import layers
from dropnorm_service.training import build_model, build_optimizer

BOTH = dn.Regularization(
    dropout=dn.Dropout(rate=0.5, input_rate=0.2), batch_norm=dn.BatchNorm(input=True)
)
RESIDUAL = listed(
    layers.Conv(channels=4),
    layers.Activation(),
    layers.Residual(
        layers=(
            layers.Conv(channels=8, stride=2),
            layers.Activation(),
            layers.Residual(layers=(layers.Conv(channels=8), layers.BatchNorm())),
        )
    ),
    layers.Activation(),
    layers.Pool(mode="global_average"),
)


def by_hand(*, dropout: bool, batch_norm: bool) -> nn.Sequential:
    """input-128-64-10 with ReLU, as anybody would write it."""
    modules: list[nn.Module] = []
    for inputs, outputs in ((64, 128), (128, 64)):
        modules.append(nn.Linear(inputs, outputs))
        modules += [nn.BatchNorm1d(outputs)] if batch_norm else []
        modules.append(nn.ReLU())
        modules += [nn.Dropout(0.5)] if dropout else []
    return nn.Sequential(*modules, nn.Linear(64, 10))


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_trains_like_a_network_written_by_hand(dropout: bool, batch_norm: bool) -> None:
    regularization = dn.Regularization(
        dropout=dn.Dropout(rate=0.5) if dropout else None,
        batch_norm=dn.BatchNorm() if batch_norm else None,
    )
    spec = mlp(128, 64, regularization=regularization)
    torch.manual_seed(0)
    x, y = torch.randn(5, 32, 64), torch.randint(10, (5, 32))
    losses = []
    for ours in (True, False):
        torch.manual_seed(7)
        if ours:
            model: nn.Module = build_model(spec, (64,), 10)
            optimizer = build_optimizer(spec.optimization, model, torch.device("cpu"))
        else:
            model = by_hand(dropout=dropout, batch_norm=batch_norm)
            optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
        history = []
        for inputs, targets in zip(x, y, strict=True):
            loss = F.cross_entropy(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            history.append(loss.detach())
        history.append(F.cross_entropy(model.eval()(x[0]), y[0]).detach())
        losses.append(torch.stack(history))
    assert torch.equal(*losses)


def test_layers_of_the_same_shape_start_alike_with_and_without_regularisation() -> None:
    for scheme in ("default", "kaiming", "orthogonal"):
        weights = []
        for regularization in (dn.Regularization(), BOTH):
            initialization = dn.Initialization(scheme=scheme)
            spec = mlp(16, 8, regularization=regularization, initialization=initialization)
            torch.manual_seed(1)
            model = build_model(spec, (12,), 3)
            weights.append(
                {name: value for name, value in model.state_dict().items() if ".linear." in name}
            )
        torch.testing.assert_close(*weights, rtol=0, atol=0)


def test_names_and_fields_of_an_mlp_on_images() -> None:
    model = build_model(mlp(16, regularization=BOTH), (1, 4, 4), 3)
    assert model.fields == {
        "input.norm": "regularization.batch_norm.input",
        "input.dropout": "regularization.dropout.input_rate",
        "input.flatten": "",
        "hidden.0.linear": "architecture.mlp.hidden[0]",
        "hidden.0.norm": "regularization.batch_norm.hidden",
        "hidden.0.activation": "architecture.mlp.activation",
        "hidden.0.dropout": "regularization.dropout.rate",
        "output.linear": "",
    }
    assert all(model.get_submodule(name) is not None for name in model.fields)
    assert model(torch.randn(5, 1, 4, 4)).shape == (5, 3)


def test_names_and_fields_of_residual_blocks() -> None:
    model = build_model(RESIDUAL, (3, 8, 8), 10)
    block = "architecture.sequential.layers[2].residual"
    inner = f"{block}.layers[2].residual"
    assert {name: field for name, field in model.fields.items() if "layers.2." in name} == {
        "layers.2.residual": block,
        "layers.2.residual.shortcut": block,
        "layers.2.residual.layers.0.conv": f"{block}.layers[0].conv",
        "layers.2.residual.layers.1.activation": f"{block}.layers[1].activation",
        "layers.2.residual.layers.2.residual": inner,
        "layers.2.residual.layers.2.residual.layers.0.conv": f"{inner}.layers[0].conv",
        "layers.2.residual.layers.2.residual.layers.1.norm": f"{inner}.layers[1].batch_norm",
    }
    assert model(torch.randn(5, 3, 8, 8)).shape == (5, 10)


def test_residual_block_adds_branch_and_shortcut() -> None:
    spec = listed(
        layers.Residual(layers=(layers.Linear(units=6), layers.Activation())),
        layers.Residual(layers=(layers.Linear(units=4),)),
    )
    model = build_model(spec, (6,), 2)
    first, second = (model.get_submodule(f"layers.{index}.residual") for index in range(2))
    assert list(model.get_submodule("layers.0.residual.shortcut").parameters()) == []
    x = torch.randn(3, 6)
    weight, bias = (
        first.get_parameter("layers.0.linear.weight"),
        first.get_parameter("layers.0.linear.bias"),
    )
    y = (x @ weight.T + bias).relu() + x
    torch.testing.assert_close(first(x), y)
    branch = F.linear(y, second.get_parameter("layers.0.linear.weight"))
    branch = branch + second.get_parameter("layers.0.linear.bias")
    z = branch + F.linear(y, second.get_parameter("shortcut.weight"))
    torch.testing.assert_close(second(y), z)


@pytest.mark.parametrize(
    "spec",
    [
        mlp(6, 5, activation="tanh", regularization=dn.Regularization(batch_norm=dn.BatchNorm())),
        listed(
            layers.Conv(channels=2, stride=2),
            layers.BatchNorm(),
            layers.Activation(function="gelu"),
            layers.Residual(layers=(layers.Conv(channels=3), layers.Activation(function="silu"))),
            layers.Pool(mode="global_average"),
        ),
        listed(layers.Flatten(), layers.Dropout(rate=0.5, rescaling="l2_norm")),
    ],
)
def test_gradients_are_those_of_the_function(spec: dn.TrainingSpec) -> None:
    torch.manual_seed(0)
    model = build_model(spec, (1, 4, 4), 3).double()
    x = torch.randn(3, 1, 4, 4, dtype=torch.float64, requires_grad=True)

    def function(value: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)
        result: torch.Tensor = model(value)
        return result

    assert torch.autograd.gradcheck(function, (x,))


def test_a_list_that_flattens_serves_flat_data_too() -> None:
    spec = listed(layers.Flatten(), layers.Linear(units=8), layers.Activation())
    assert build_model(spec, (64,), 3)(torch.randn(2, 64)).shape == (2, 3)
    assert build_model(spec, (1, 8, 8), 3)(torch.randn(2, 1, 8, 8)).shape == (2, 3)


def test_a_linear_model_has_no_hidden_layer() -> None:
    model = build_model(mlp(), (4,), 3)
    assert list(model.fields) == ["output.linear"]


def test_a_list_may_end_with_its_own_output_layer() -> None:
    spec = listed(layers.Linear(units=3, bias=False), output_layer=False)
    model = build_model(spec, (4,), 3)
    assert list(model.state_dict()) == ["layers.0.linear.weight"]


def test_nothing_but_weights_and_statistics_is_saved() -> None:
    state = build_model(mlp(8, regularization=BOTH), (4,), 3).state_dict()
    assert {name.rpartition(".")[2] for name in state} == {
        "weight",
        "bias",
        "running_mean",
        "running_var",
        "num_batches_tracked",
    }


def test_a_copy_is_whole() -> None:
    model = build_model(RESIDUAL, (3, 8, 8), 10).eval()
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(copy.deepcopy(model)(x), model(x))


def test_meta_device_takes_no_memory_and_draws_nothing() -> None:
    spec = mlp(2**18, 2**18, initialization=dn.Initialization(scheme="orthogonal"))
    before = torch.get_rng_state()
    with torch.device("meta"):
        model = build_model(spec, (64,), 10)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("spec", "shape", "field", "message"),
    [
        (
            listed(layers.Activation(), layers.Flatten(), layers.Conv(channels=2, kernel_size=3)),
            (1, 8, 8),
            "architecture.sequential.layers[2].conv",
            "receives a feature vector of 64",
        ),
        (
            listed(layers.Pool(kernel_size=8), layers.Conv(channels=2, kernel_size=3, padding=0)),
            (1, 8, 8),
            "architecture.sequential.layers[1].conv.kernel_size",
            "spans 3 pixels",
        ),
        (
            listed(layers.Residual(layers=(layers.Conv(channels=4, groups=2),))),
            (3, 8, 8),
            "architecture.sequential.layers[0].residual.layers[0].conv.groups",
            "do not divide the 3 channels",
        ),
        (
            listed(layers.Residual(layers=(layers.Pool(), layers.Flatten()))),
            (3, 8, 8),
            "architecture.sequential.layers[0].residual",
            "cannot be added",
        ),
        (
            listed(layers.Linear(units=4)),
            (1, 8, 8),
            "architecture.sequential.layers[0].linear",
            "add a flatten layer before it",
        ),
        (
            listed(layers.Linear(units=4), layers.Activation(), output_layer=False),
            (8,),
            "architecture.sequential.layers[1].activation",
            "leaves a feature vector of 4, and the data needs 3 outputs",
        ),
        (
            listed(layers.Linear(units=4), output_layer=False),
            (8,),
            "architecture.sequential.layers[0].linear.units",
            "end with a linear layer of 3 units",
        ),
        (
            listed(layers.Conv(channels=3), output_layer=False),
            (1, 8, 8),
            "architecture.sequential.layers[0].conv",
            "leaves an image of 3 x 8 x 8",
        ),
    ],
)
def test_layers_that_do_not_fit(
    spec: dn.TrainingSpec, shape: tuple[int, ...], field: str, message: str
) -> None:
    with pytest.raises(dn.InvalidSpecError) as raised:
        build_model(spec, shape, 3)
    assert list(problems(raised.value)) == [field]
    assert message in problems(raised.value)[field]


@pytest.mark.parametrize(
    ("spec", "shape", "field", "what"),
    [
        (mlp(*[2**20] * 512), (64,), "architecture.mlp.hidden[1]", "parameters"),
        (
            listed(*[layers.Conv(channels=2**20, kernel_size=1024, padding=1024)] * 512),
            (3, 32, 32),
            "architecture.sequential.layers[0].conv",
            "parameters",
        ),
        (
            listed(*[layers.Conv(channels=2**20, groups=2**20, padding=1024)] * 512),
            (2**20, 1, 1),
            "architecture.sequential.layers[0].conv",
            "values per sample",
        ),
        (
            listed(*[layers.Conv(channels=2**10, kernel_size=1023)] * 512),
            (2**10, 1000, 1000),
            "architecture.sequential.layers[0].conv",
            "parameters",
        ),
        (
            listed(*[layers.Conv(channels=2**8, kernel_size=1023)] * 512),
            (2**8, 3000, 3000),
            "architecture.sequential.layers[0].conv",
            "operations per sample",
        ),
    ],
)
def test_absurd_networks_are_refused_at_once(
    spec: dn.TrainingSpec, shape: tuple[int, ...], field: str, what: str
) -> None:
    with pytest.raises(dn.InvalidSpecError) as raised:
        build_model(spec, shape, 3)
    assert list(problems(raised.value)) == [field]
    assert what in problems(raised.value)[field]
