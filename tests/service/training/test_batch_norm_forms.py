"""Forms of batch norm: against torch's own where they must agree, and against formulas written out here."""

from typing import Any

import pytest
import torch
from tests.service.training.made import classification, split_of
from tests.service.training.shorthand import listed, mlp, problems, summary
from torch import Tensor, nn

from dropnorm import spec as dn
from dropnorm.spec import layers
from dropnorm_service.training import build_model, fit, plan
from dropnorm_service.training.layers import BLUEPRINTS, DoesNotFit
from dropnorm_service.training.layers.ghosts import GhostBatchNorm
from dropnorm_service.training.layers.synchronized import SynchronizedBatchNorm

SHAPES = [(16, 3), (12, 3, 4, 5)]


def statistics(module: nn.Module) -> tuple[Tensor, Tensor]:
    return module.get_buffer("running_mean"), module.get_buffer("running_var")


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance per channel."""
    values = x.transpose(0, 1).flatten(1)
    return values.mean(dim=1), values.var(dim=1)


def normalised(x: Tensor, eps: float = 1e-5) -> Tensor:
    rest = (0, *range(2, x.ndim))
    mean = x.mean(dim=rest, keepdim=True)
    return (x - mean) / (x.var(dim=rest, keepdim=True, correction=0) + eps).sqrt()


def made(shape: tuple[int, ...], **settings: Any) -> nn.Module:
    return BLUEPRINTS["batch_norm"](layers.BatchNorm(**settings), shape[1:]).make()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("momentum", [0.3, None])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("tracking", [True, False])
def test_a_single_ghost_batch_is_torchs_batch_norm(
    shape: tuple[int, ...], momentum: float | None, affine: bool, tracking: bool
) -> None:
    settings: dict[str, Any] = {
        "momentum": momentum, "eps": 1e-3, "affine": affine, "track_running_stats": tracking,
    }  # fmt: skip
    torchs = (nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d)(shape[1], **settings)
    ours = [GhostBatchNorm(shape[1], size, **settings) for size in (None, shape[0] - 1)]
    for module in ours:
        assert module.state_dict().keys() == torchs.state_dict().keys()
    for seed in range(3):
        x = 2.0 + 3.0 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
        inputs = [x.clone().requires_grad_() for _ in range(3)]
        outputs = [module(each) for module, each in zip([torchs, *ours], inputs, strict=True)]
        for y in outputs:
            y.square().mul(x).sum().backward()
        evaluated = torchs.eval()(x)
        for module, y, each in zip(ours, outputs[1:], inputs[1:], strict=True):
            torch.testing.assert_close(y, outputs[0])
            torch.testing.assert_close(each.grad, inputs[0].grad)
            torch.testing.assert_close(module.eval()(x), evaluated)
            module.train()
        torchs.train()


def test_a_cumulative_average_is_the_mean_of_all_batches() -> None:
    module = made(SHAPES[0], averaging="cumulative")
    batches = [torch.randn(8, 3) * scale for scale in (1.0, 2.0, 5.0)]
    for x in batches:
        module(x)
    means, variances = zip(*map(moments, batches), strict=True)
    mean, variance = statistics(module)
    torch.testing.assert_close(mean, torch.stack(means).mean(dim=0))
    torch.testing.assert_close(variance, torch.stack(variances).mean(dim=0))


@pytest.mark.parametrize("shape", SHAPES)
def test_each_ghost_batch_is_normalised_by_itself(shape: tuple[int, ...]) -> None:
    x = torch.randn(*shape)
    y = GhostBatchNorm(3, 4)(x)
    ghosts = shape[0] // 4
    for ghost in range(ghosts):
        torch.testing.assert_close(y[ghost::ghosts], normalised(x[ghost::ghosts]))


def test_the_last_ghost_batch_takes_what_is_left_over() -> None:
    x = torch.randn(11, 3, 2, 2)
    module = GhostBatchNorm(3, 4, affine=False)
    y = module(x)
    torch.testing.assert_close(y[:4], normalised(x[:4]))
    torch.testing.assert_close(y[4:], normalised(x[4:]))


def test_running_statistics_move_once_for_each_ghost_batch() -> None:
    """As Hoffer et al. 2017 have it, algorithm 1: as if they were batches that come one after the other."""
    x = torch.randn(14, 3)
    for momentum in (0.3, None):
        ghosts = GhostBatchNorm(3, 4, momentum=momentum)
        plain = nn.BatchNorm1d(3, momentum=momentum)
        for _ in range(2):
            ghosts(x)
            for part in (x[:8][0::2], x[:8][1::2], x[8:]):
                plain(part)
        for ours, theirs in zip(statistics(ghosts), statistics(plain), strict=True):
            torch.testing.assert_close(ours, theirs)
        assert ghosts.num_batches_tracked == plain.num_batches_tracked == 6


@pytest.mark.parametrize("samples", [6, 7])
def test_gradients_by_finite_differences(samples: int) -> None:
    module = GhostBatchNorm(2, 3).double()
    x = torch.randn(samples, 2, 2, dtype=torch.float64, requires_grad=True)
    torch.nn.init.uniform_(module.weight)

    def apply(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        y: Tensor = torch.func.functional_call(module, {"weight": weight, "bias": bias}, (x,))
        return y

    assert torch.autograd.gradcheck(apply, (x, module.weight, module.bias))


def test_half_precision_keeps_statistics_in_full() -> None:
    module = GhostBatchNorm(3, 4)
    with torch.autocast("cpu", torch.bfloat16):
        y = module(torch.randn(8, 3, 2, 2).bfloat16())
    assert y.dtype == torch.bfloat16
    assert statistics(module)[0].dtype == torch.float32


def test_a_synchronised_batch_norm_on_one_device_is_a_plain_one() -> None:
    for shape in SHAPES:
        module, plain = made(shape, synchronized=True), made(shape)
        assert isinstance(module, SynchronizedBatchNorm)
        for _ in range(2):
            x = torch.randn(*shape)
            assert torch.equal(module(x), plain(x))
        for ours, theirs in zip(statistics(module), statistics(plain), strict=True):
            assert torch.equal(ours, theirs)
        assert torch.equal(module.eval()(x), plain.eval()(x))


def test_plain_settings_are_torchs_modules() -> None:
    assert type(made(SHAPES[0])) is nn.BatchNorm1d
    assert type(made(SHAPES[1])) is nn.BatchNorm2d


FROZEN: dict[str, Any] = {"freeze_after": 1, "freeze_affine": True}


def test_what_is_frozen_stands_still_and_trains_as_it_evaluates() -> None:
    """Against a loop that freezes by hand."""
    spec = mlp(
        8,
        optimization=dn.Optimization(
            optimizer=dn.SGD(lr=0.1, momentum=0.9, weight_decay=0.01),
            decay_biases_and_norms=True,
            epochs=3,
            batch_size=64,
        ),
        regularization=dn.Regularization(batch_norm=dn.BatchNorm(**FROZEN)),
    )
    data = split_of(spec, classification(6))
    one = spec.model_copy(
        update={"optimization": spec.optimization.model_copy(update={"epochs": 1})}
    )
    first, whole = fit(one, data).model, fit(spec, data).model
    for name in ("running_mean", "running_var", "num_batches_tracked", "weight", "bias"):
        key = f"hidden.0.norm.{name}"
        assert torch.equal(first.state_dict()[key], whole.state_dict()[key]), name
    assert not torch.equal(
        first.state_dict()["output.linear.weight"], whole.state_dict()["output.linear.weight"]
    )


def test_statistics_freeze_without_gamma_and_beta() -> None:
    spec = mlp(
        8,
        optimization=dn.Optimization(epochs=3, batch_size=64),
        regularization=dn.Regularization(batch_norm=dn.BatchNorm(freeze_after=1)),
    )
    data = split_of(spec, classification(6))
    seen: list[bool] = []
    forward = nn.BatchNorm1d.forward

    def watched(module: nn.BatchNorm1d, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            seen.append(module.training)
        return forward(module, x)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.BatchNorm1d, "forward", watched)
        result = fit(spec, data)
    steps = result.evaluation.history[0].step
    assert seen == [True] * steps + [False] * 2 * steps
    assert all(each.requires_grad for each in result.model.parameters())


CASES: dict[str, dict[str, Any]] = {
    "cumulative": {"averaging": "cumulative"},
    "ghosts": {"ghost_batch_size": 10},
    "cumulative ghosts": {"averaging": "cumulative", "ghost_batch_size": 10},
    "frozen": FROZEN,
    "synchronised": {"synchronized": True},
    "synchronised cumulative": {"synchronized": True, "averaging": "cumulative"},
    "synchronised frozen": {"synchronized": True, **FROZEN},
}


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, "BatchNorm1d(8)"),
        ({"averaging": "cumulative"}, "BatchNorm1d(8), cumulative average"),
        ({"ghost_batch_size": 32}, "BatchNorm1d(8), ghost batches of 32"),
        ({"freeze_after": 5}, "BatchNorm1d(8), frozen after epoch 5"),
        ({"synchronized": True}, "BatchNorm1d(8), over all devices"),
        (
            {"synchronized": True, "averaging": "cumulative"},
            "BatchNorm1d(8), cumulative average, over all devices",
        ),
    ],
)
def test_plan_shows_the_form(settings: dict[str, Any], text: str) -> None:
    spec = mlp(8, regularization=dn.Regularization(batch_norm=dn.BatchNorm(**settings)))
    layer = next(row for row in plan(spec, summary(4)).layers if row.name == "hidden.0.norm")
    assert layer.type == text
    assert layer.parameters == 16


def test_the_list_layer_has_the_same_forms() -> None:
    spec = listed(
        layers.Linear(units=4), layers.BatchNorm(ghost_batch_size=8, averaging="cumulative")
    )
    module = build_model(spec, (3,), 2).get_submodule("layers.1.norm")
    assert isinstance(module, GhostBatchNorm)
    assert (module.size, module.momentum) == (8, None)


@pytest.mark.parametrize("settings", CASES.values(), ids=CASES)
def test_each_form_exports_with_a_dynamic_batch(settings: dict[str, Any]) -> None:
    module = made(SHAPES[1], **settings)
    module(torch.randn(SHAPES[1]))
    shapes = ({0: torch.export.Dim("batch")},)
    exported = torch.export.export(module.eval(), (torch.randn(SHAPES[1]),), dynamic_shapes=shapes)
    for samples in (2, 40):
        x = torch.randn(samples, *SHAPES[1][1:])
        torch.testing.assert_close(exported.module()(x), module(x))


@pytest.mark.parametrize("field", ["ghost_batch_size", "synchronized"])
def test_forms_that_sequences_have_not(field: str) -> None:
    settings: dict[str, Any] = {field: 4 if field == "ghost_batch_size" else True}
    with pytest.raises(DoesNotFit, match=f"a batch norm of sequences has no {field}") as raised:
        made((2, 5, 8), **settings)
    assert raised.value.field == field


def test_freezing_all_that_can_learn_is_refused() -> None:
    norm = layers.BatchNorm(freeze_after=1, freeze_affine=True)
    spec = listed(norm, output_layer=False, optimization=dn.Optimization(epochs=2))
    with pytest.raises(dn.InvalidSpecError) as raised:
        plan(spec, summary(4, outputs=4))
    assert problems(raised.value) == {
        "architecture.sequential.layers[0].batch_norm.freeze_affine": "all that the network can learn are gamma and "
        "beta, which this freezes; leave it out"
    }
