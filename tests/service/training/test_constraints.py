"""L1, max-norm and label smoothing: against hand-written forms of each, and of a whole training."""

from typing import Any

import pytest
import torch
from tests.service.training.made import classification, regression, split_of
from tests.service.training.shorthand import listed, mlp, problems, summary
from torch import Tensor, nn
from torch.nn import functional as F

from dropnorm import spec as dn
from dropnorm.spec import layers
from dropnorm_service.training import fit, plan
from dropnorm_service.training.batching import epoch_order
from dropnorm_service.training.constraints import L1Penalty, MaxNorm
from dropnorm_service.training.layers import Side
from dropnorm_service.training.objectives import objective_of
from dropnorm_service.training.step import loss_of

LIMIT, STRENGTH, SMOOTHING = 0.5, 0.01, 0.2


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(
    "layer",
    [nn.Linear(5, 7), nn.Conv2d(4, 6, 3, groups=2), nn.ConvTranspose2d(4, 6, 3, groups=2)],
    ids=lambda layer: type(layer).__name__,
)
def test_max_norm_scales_what_comes_into_each_unit(layer: nn.Module) -> None:
    """A unit's incoming weights are those that the sum of its outputs has a gradient for."""
    weight, bias = (layer.get_parameter(name) for name in ("weight", "bias"))
    with torch.no_grad():
        weight.mul_(torch.linspace(0.1, 3.0, weight.numel()).view_as(weight))
    before = weight.detach().clone()
    shape = (2, 5) if isinstance(layer, nn.Linear) else (2, 4, 5, 5)
    expected, long = before.clone(), 0
    for unit in range(len(bias)):
        (gradient,) = torch.autograd.grad(layer(torch.rand(shape) + 0.1)[:, unit].sum(), weight)
        incoming = gradient != 0
        length = before[incoming].norm()
        long += bool(length > LIMIT)
        if length > LIMIT:
            expected[incoming] *= LIMIT / length

    kept = bias.detach().clone()
    MaxNorm(nn.Sequential(nn.BatchNorm1d(3), layer), LIMIT).project()

    assert 0 < long < len(bias) or isinstance(layer, nn.ConvTranspose2d)
    torch.testing.assert_close(weight.detach(), expected)
    assert torch.equal(bias, kept)


def test_max_norm_of_a_unit_without_weights() -> None:
    layer = nn.Linear(3, 2)
    nn.init.zeros_(layer.weight)
    MaxNorm(layer, LIMIT).project()
    assert torch.equal(layer.weight, torch.zeros(2, 3))


def test_l1_is_the_gradient_of_the_absolute_weights() -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2))
    with torch.no_grad():
        network.get_parameter("3.weight")[0, 0] = 0.0
    x = torch.randn(5, 2, 4, 4)
    network(x).square().mean().backward()
    L1Penalty(network, STRENGTH).add_gradient()
    found = [parameter.grad for parameter in network.parameters()]

    weights = [network.get_parameter(name) for name in ("0.weight", "3.weight")]
    penalty = torch.stack([weight.abs().sum() for weight in weights]).sum()
    loss = network(x).square().mean() + STRENGTH * penalty
    exact = torch.autograd.grad(loss, list(network.parameters()))
    torch.testing.assert_close(found, list(exact))


def smoothed(logits: Tensor, y: Tensor) -> Tensor:
    """Szegedy et al. 2016, section 7: cross-entropy against (1 - s) of the label and s of a uniform one."""
    classes = logits.shape[1]
    target = torch.full_like(logits, SMOOTHING / classes)
    target[torch.arange(len(y)), y] += 1.0 - SMOOTHING
    return -(target * logits.log_softmax(dim=1)).sum(dim=1).mean()


def test_a_training_is_that_of_a_plain_loop() -> None:
    spec = mlp(
        16,
        regularization=dn.Regularization(max_norm=LIMIT, l1=STRENGTH, label_smoothing=SMOOTHING),
        optimization=dn.Optimization(optimizer=dn.SGD(lr=0.5), epochs=1, batch_size=48),
    )
    data = split_of(spec, classification(6))
    torch.manual_seed(spec.seed)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    weights = [each for each in model.parameters() if each.ndim > 1]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    losses, sizes = [], []
    for batch in epoch_order(len(data.train), spec.seed, 1).split(48):
        x, y = data.train.x[batch], data.train.y[batch]
        loss = smoothed(model(x), y)
        penalty = torch.stack([weight.abs().sum() for weight in weights]).sum()
        optimizer.zero_grad()
        (loss + STRENGTH * penalty).backward()
        optimizer.step()
        with torch.no_grad():
            for weight in weights:
                weight.copy_(torch.renorm(weight, 2, 0, LIMIT))
        losses.append(loss.item() * len(batch))
        sizes.append(len(batch))

    result = fit(spec, data)

    for one, other in zip(result.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert max(row.norm().item() for row in weights[0]) == pytest.approx(LIMIT, rel=1e-4)
    (epoch,) = result.evaluation.history
    assert epoch.train_loss == pytest.approx(sum(losses) / sum(sizes), rel=1e-4)
    with torch.no_grad():
        judged = F.cross_entropy(model(data.validation.x), data.validation.y).item()
    assert epoch.validation_loss == pytest.approx(judged, rel=1e-4)
    assert result.evaluation.validation.loss == pytest.approx(judged, rel=1e-4)


def test_labels_are_smoothed_in_auxiliary_heads_too() -> None:
    spec = mlp(4, regularization=dn.Regularization(label_smoothing=SMOOTHING))
    objective = objective_of(spec, split_of(spec, classification(6)))
    logits, y = torch.randn(8, 3), torch.arange(8) % 3
    side = Side(nn.Identity())
    side(logits)
    main = torch.randn(8, 3)
    loss = loss_of(objective, lambda x: main, [side], torch.empty(8, 4), y)
    torch.testing.assert_close((loss - smoothed(main, y)) / 0.3, smoothed(logits, y))


def test_numbers_have_no_labels_to_smooth() -> None:
    spec = mlp(4, regularization=dn.Regularization(label_smoothing=SMOOTHING))
    with pytest.raises(dn.InvalidSpecError) as caught:
        fit(spec, split_of(spec, regression(5)))
    assert problems(caught.value) == {
        "regularization.label_smoothing": "this is a regression of made, which has no labels to smooth; leave it out"
    }


def test_convolutions_keep_within_the_limit() -> None:
    spec = listed(
        layers.Conv(channels=4),
        layers.BatchNorm(),
        layers.Activation(),
        layers.Flatten(),
        regularization=dn.Regularization(max_norm=0.25, l1=1e-4),
        optimization=dn.Optimization(epochs=1, batch_size=48, micro_batch_size=16),
    )
    result = fit(spec, split_of(spec, classification(2, 6, 6)))
    lengths = [
        weight.flatten(1).norm(dim=1) for weight in result.model.parameters() if weight.ndim > 1
    ]
    assert len(lengths) == 2
    assert all((length < 0.25 * (1.0 + 1e-5)).all() for length in lengths)
    assert any((length > 0.25 * (1.0 - 1e-5)).any() for length in lengths)


def test_lint_where_a_norm_takes_the_scale_away() -> None:
    def found(architecture: dn.Architecture, **regularization: Any) -> dict[str, str]:
        spec = mlp(
            8, regularization=dn.Regularization(**{"max_norm": 3.0, **regularization})
        ).model_copy(update={"architecture": architecture})
        lints = plan(spec, summary(1, 8, 8)).lints
        return {lint.code: lint.field for lint in lints if "MAX_NORM" in lint.code}

    resnet, silent = dn.ResNet(blocks=(1, 1), width=8), dn.MLP(hidden=(8,))
    for architecture in (resnet, silent):
        norm = {"batch_norm": dn.BatchNorm()}
        speaks = {"MAX_NORM_BEFORE_BATCH_NORM": "regularization.max_norm"}
        assert found(architecture, **norm) == speaks
        assert found(architecture, max_norm=None, l1=1.0, **norm) == {}
        assert found(architecture, layer_norm=dn.LayerNorm()) == found(architecture) == {}
