"""Running statistics computed anew: against those of all values at once, in a training, and with what they change."""

from typing import Any

import pytest
import torch
from tests.service.training.made import classification, regression, split_of
from tests.service.training.shorthand import listed, mlp
from torch import Tensor, nn

from dropnorm import spec as dn
from dropnorm.spec import layers
from dropnorm_service.training import FitResult, fit
from dropnorm_service.training.layers import Context
from dropnorm_service.training.layers.ghosts import GhostBatchNorm
from dropnorm_service.training.layers.norms import TokenBatchNorm
from dropnorm_service.training.recalibration import recalibrating, shifts, statistics_of

RECALIBRATED = dn.EvaluationSettings(recalibrate_batch_norm="dropout_off")


def of_all(x: Tensor) -> tuple[Tensor, Tensor]:
    values = x.transpose(0, 1).flatten(1).double()
    return values.mean(dim=1).float(), values.var(dim=1).float()


def running(norm: nn.Module) -> tuple[Tensor, Tensor]:
    return norm.get_buffer("running_mean"), norm.get_buffer("running_var")


@pytest.mark.parametrize(
    ("norm", "shape"),
    [
        (nn.BatchNorm1d(3), (50, 3)),
        (nn.BatchNorm2d(3), (50, 3, 4, 5)),
        (GhostBatchNorm(3, 4), (50, 3)),
        (GhostBatchNorm(3, momentum=None), (50, 3, 2, 2)),
    ],
)
def test_they_are_those_of_all_values_at_once(norm: nn.Module, shape: tuple[int, ...]) -> None:
    x = 100.0 + torch.arange(50.0).view(-1, *[1] * (len(shape) - 1)) + torch.randn(shape)
    norm.train()(x[:8])
    tracked = norm.get_buffer("num_batches_tracked").clone()
    with recalibrating(norm):
        for batch in x.split(16):
            norm(batch)
    for ours, exact in zip(running(norm), of_all(x), strict=True):
        torch.testing.assert_close(ours, exact)
    assert norm.get_buffer("num_batches_tracked") == tracked
    before = running(norm)[0].clone()
    norm(x[:8])
    assert not torch.equal(running(norm)[0], before)  # it goes on as before


def test_padding_does_not_count() -> None:
    norm, x = TokenBatchNorm(2), torch.randn(6, 5, 2)
    padding = torch.arange(5).expand(6, 5) >= torch.tensor([[5], [4], [3], [2], [1], [1]])
    with recalibrating(norm):
        for rows in (slice(0, 2), slice(2, 6)):
            norm(x[rows], Context(padding=padding[rows]))
    for ours, exact in zip(running(norm), of_all(x[~padding]), strict=True):
        torch.testing.assert_close(ours, exact)


def test_what_is_frozen_or_not_reached_stays() -> None:
    network = nn.ModuleDict({name: nn.BatchNorm1d(2) for name in ("moved", "frozen", "unused")})
    network["frozen"].eval()
    before = statistics_of(network)
    with recalibrating(network):
        for name in ("moved", "frozen"):
            network[name](5.0 + torch.randn(8, 2))
    found = {shift.layer: shift.largest_mean_shift for shift in shifts(network, before)}
    assert found["moved"] > 3
    assert found["frozen"] == found["unused"] == 0


def test_shifts_are_in_deviations_and_shares() -> None:
    norm = nn.Sequential(nn.BatchNorm1d(2, eps=1e-12))
    mean, variance = running(norm[0])
    mean.copy_(torch.tensor([1.0, 2.0]))
    variance.copy_(torch.tensor([4.0, 9.0]))
    before = statistics_of(norm)
    mean.copy_(torch.tensor([2.0, -1.0]))
    variance.copy_(torch.tensor([5.0, 4.5]))
    (shift,) = shifts(norm, before)
    assert shift.layer == "0"
    assert shift.mean_shift == pytest.approx(0.75)
    assert shift.largest_mean_shift == pytest.approx(1.0)
    assert shift.variance_shift == pytest.approx(0.375)
    assert shift.largest_variance_shift == pytest.approx(0.5)


def trained(how: Any, **parts: Any) -> tuple[FitResult, dn.TrainingSpec]:
    spec = mlp(
        16,
        **{
            "optimization": dn.Optimization(epochs=2, batch_size=48),
            "evaluation": dn.EvaluationSettings(recalibrate_batch_norm=how),
            "regularization": dn.Regularization(
                dropout=dn.Dropout(rate=0.3, input_rate=0.3), batch_norm=dn.BatchNorm()
            ),
            **parts,
        },
    )
    return fit(spec, split_of(spec, classification(6))), spec


def test_a_training_reports_what_changes() -> None:
    plain, _ = trained(None)
    result, spec = trained("dropout_off")
    assert plain.evaluation.recalibration is None
    found = result.evaluation.recalibration
    assert found is not None
    assert found.validation_before == plain.evaluation.validation
    assert result.evaluation.history[0].train_loss == plain.evaluation.history[0].train_loss
    assert result.evaluation.validation != plain.evaluation.validation
    (shift,) = found.layers
    assert shift.layer == "hidden.0.norm"
    assert 0 < shift.mean_shift < shift.largest_mean_shift
    assert "batch norm recalibrated: validation loss" in repr(result.evaluation)
    assert "(hidden.0.norm)" in repr(result.evaluation)
    assert f"{shift.largest_variance_shift:.1%}" in repr(found)
    for name, weight in result.model.state_dict().items():
        assert torch.equal(weight, plain.model.state_dict()[name]) == ("running" not in name), name
    # The first layer's norm sees the input's projection, so its statistics can be told without the network's help.
    train = split_of(spec, classification(6)).train.x
    with torch.no_grad():
        reached = result.model.get_submodule("hidden.0.linear")(train)
    for ours, exact in zip(
        running(result.model.get_submodule("hidden.0.norm")), of_all(reached), strict=True
    ):
        torch.testing.assert_close(ours, exact)
    assert not result.model.training


def test_dropout_may_be_on() -> None:
    """Dropout before the norm adds to its variance, in training alone (Li et al. 2018)."""
    variances = [
        running(trained(how)[0].model.get_submodule("hidden.0.norm"))[1]
        for how in ("dropout_off", "dropout_on")
    ]
    assert (variances[1] > 1.1 * variances[0]).all()


def test_a_frozen_norm_keeps_the_statistics_it_was_trained_with() -> None:
    regularization = dn.Regularization(batch_norm=dn.BatchNorm(freeze_after=1))
    result, _ = trained("dropout_off", regularization=regularization)
    assert result.evaluation.best_epoch == 2
    assert result.evaluation.recalibration is not None
    (shift,) = result.evaluation.recalibration.layers
    assert shift.largest_mean_shift == 0


def test_images_regression_and_parts_of_a_batch() -> None:
    spec = listed(
        layers.Conv(channels=3),
        layers.BatchNorm(),
        layers.Activation(),
        layers.Flatten(),
        evaluation=RECALIBRATED,
        optimization=dn.Optimization(epochs=1, batch_size=64, micro_batch_size=16),
    )
    result = fit(spec, split_of(spec, regression(1, 4, 4)))
    assert result.evaluation.recalibration is not None
    (shift,) = result.evaluation.recalibration.layers
    assert shift.layer == "layers.1.norm"
    assert shift.largest_variance_shift > 0
