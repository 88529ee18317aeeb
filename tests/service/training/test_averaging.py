"""Averages of weights against plain sums over the weights of a training, and what is judged by them."""

import copy
from typing import Any

import pytest
import torch
from tests.service.training.made import classification, split_of
from tests.service.training.shorthand import mlp, summary
from torch import Tensor, nn
from torch.nn import functional as F

from dropnorm import spec as dn
from dropnorm_service.training import FitResult, SplitData, fit, plan
from dropnorm_service.training.averaging import ExponentialAverage, first_averaged
from dropnorm_service.training.batching import epoch_order

EPOCHS, BATCH = 4, 48
NORM = dn.Regularization(batch_norm=dn.BatchNorm())


def trained(averaging: Any = None, **parts: Any) -> tuple[FitResult, SplitData, dn.TrainingSpec]:
    optimization = dn.Optimization(
        optimizer=dn.SGD(lr=0.3), epochs=EPOCHS, batch_size=BATCH, averaging=averaging
    )
    spec = mlp(8, **{"optimization": optimization, "regularization": NORM, **parts})
    data = split_of(spec, classification(6))
    return fit(spec, data), data, spec


def plain(spec: dn.TrainingSpec, data: SplitData) -> list[list[nn.Sequential]]:
    """The network after each step of each epoch, as torch alone trains it."""
    torch.manual_seed(spec.seed)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    found = []
    for epoch in range(1, EPOCHS + 1):
        steps = []
        for batch in epoch_order(len(data.train), spec.seed, epoch).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(model(data.train.x[batch]), data.train.y[batch]).backward()
            optimizer.step()
            steps.append(copy.deepcopy(model))
        found.append(steps)
    return found


def loss_of(model: nn.Module, data: SplitData) -> float:
    with torch.no_grad():
        return F.cross_entropy(model.eval()(data.validation.x), data.validation.y).item()


def mean(models: list[nn.Sequential]) -> nn.Sequential:
    result = copy.deepcopy(models[-1])
    for name, parameter in result.named_parameters():
        values = [model.get_parameter(name).detach() for model in models]
        parameter.data = torch.stack(values).double().mean(dim=0).float()
    return result


def test_stochastic_averages_are_means_with_statistics_of_their_own() -> None:
    result, data, spec = trained(dn.SWA(start_epoch=2))
    ends = [steps[-1] for steps in plain(spec, data)]
    expected = [loss_of(ends[0], data)]
    for epoch in range(2, EPOCHS + 1):
        model = mean(ends[1:epoch])
        with (
            torch.no_grad()
        ):  # the norm sees what the first layer makes of the whole training split
            reached = model[0](data.train.x)
        norm = model.get_submodule("1")
        norm.get_buffer("running_mean").copy_(reached.mean(dim=0))
        norm.get_buffer("running_var").copy_(reached.var(dim=0))
        expected.append(loss_of(model, data))

    history = result.evaluation.history
    assert [each.validation_loss for each in history] == pytest.approx(expected, rel=1e-4)
    best = min(range(EPOCHS), key=expected.__getitem__)
    assert result.evaluation.best_epoch == best + 1
    assert result.evaluation.validation.loss == pytest.approx(expected[best], rel=1e-4)
    assert loss_of(result.model, data) == pytest.approx(expected[best], rel=1e-4)


def test_moving_averages_are_weighted_sums_of_all_steps() -> None:
    decay = 0.6
    result, data, spec = trained(dn.EMA(decay=decay))
    torch.manual_seed(spec.seed)
    start = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    average = {name: value.double() for name, value in start.state_dict().items()}
    expected, step = [], 0
    for models in plain(spec, data):
        for model in models:
            step += 1
            kept = min(decay, (1 + step) / (10 + step))
            for name, value in model.state_dict().items():
                average[name] = kept * average[name] + (1 - kept) * value.double()
        judged = copy.deepcopy(start)
        counter = {"1.num_batches_tracked": torch.tensor(step)}
        judged.load_state_dict(average | counter)
        expected.append(loss_of(judged, data))

    history = result.evaluation.history
    assert [each.validation_loss for each in history] == pytest.approx(expected, rel=1e-4)
    assert result.evaluation.validation.loss == pytest.approx(min(expected), rel=1e-4)


@pytest.mark.parametrize("averaging", [dn.EMA(), dn.SWA(start_epoch=2)])
def test_training_itself_is_as_without(averaging: Any) -> None:
    dropout = dn.Regularization(batch_norm=dn.BatchNorm(), dropout=dn.Dropout(rate=0.3))
    without, _, _ = trained(regularization=dropout)
    result, _, _ = trained(averaging, regularization=dropout)
    losses = [
        [epoch.train_loss for epoch in found.evaluation.history] for found in (result, without)
    ]
    assert losses[0] == losses[1]
    assert (
        result.evaluation.history[-1].validation_loss
        != without.evaluation.history[-1].validation_loss
    )


def test_frozen_norms_keep_their_statistics_and_scheduled_dropout_its_rate() -> None:
    regularization = dn.Regularization(
        batch_norm=dn.BatchNorm(freeze_after=1),
        dropout=dn.Dropout(
            rate=0.3, rescaling="at_inference", schedule=dn.OffAfterDropoutSchedule(epochs=2)
        ),
    )
    frozen, _, _ = trained(dn.SWA(start_epoch=3), regularization=regularization)
    without, _, _ = trained(regularization=regularization)
    statistics = [
        found.model.get_submodule("hidden.0.norm").get_buffer("running_mean")
        for found in (frozen, without)
    ]
    torch.testing.assert_close(*statistics)
    first, second = (
        [epoch.validation_loss for epoch in found.evaluation.history[:2]]
        for found in (frozen, without)
    )
    assert (
        first == second
    )  # before averaging begins the rates of the epoch are in force here as there


def test_averages_start_in_the_last_quarter() -> None:
    starts = [first_averaged(dn.SWA(), epochs) for epochs in (1, 2, 3, 4, 20, 100)]
    assert starts == [1, 2, 3, 4, 16, 76]
    assert first_averaged(dn.SWA(start_epoch=2), 20) == 2


def test_an_average_of_a_network_without_norms() -> None:
    class Plain(nn.Linear):
        fields: Any = {}

    model: Any = Plain(2, 2)
    average = ExponentialAverage(model, 0.9)
    before: Tensor = average.network.get_parameter("weight").detach().clone()
    with torch.no_grad():
        model.weight.add_(1.0)
    average.after_step()
    torch.testing.assert_close(
        average.network.get_parameter("weight").detach(), before + 1.0 - 2.0 / 11.0
    )
    assert average.after_epoch(1) is False


def test_memory_of_a_second_network() -> None:
    def parameters(averaging: Any) -> int:
        spec = mlp(8, optimization=dn.Optimization(averaging=averaging))
        return plan(spec, summary(64)).memory.parameters

    assert 2 * parameters(dn.EMA()) == 2 * parameters(dn.SWA()) == 3 * parameters(None)
