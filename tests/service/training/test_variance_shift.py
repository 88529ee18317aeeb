"""The measured variance shift against the formula of Li et al. 2018, and what measuring it leaves alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.service.training import test_bert
from tests.service.training.made import classification, regression, split_of
from tests.service.training.shorthand import asked, listed, mlp
from torch import nn

from dropnorm import spec as dn
from dropnorm.spec import layers
from dropnorm_service.training import fit

MEASURED = dn.EvaluationSettings(variance_shift=True)
# So slowly that the weights in front of a norm are all but those it began with.
STILL = dn.Optimization(optimizer=dn.SGD(lr=1e-9), epochs=1, batch_size=50)


def test_dropout_right_ahead_shifts_by_the_formula() -> None:
    """With mean c and variance v of an activation: evaluation / training = `v / ((c^2 + v) / (1 - p) - c^2)`."""
    rate = 0.3
    spec = listed(
        layers.Dropout(rate=rate),
        layers.BatchNorm(),
        data=dn.Data(dataset="made", standardization="none"),
        optimization=STILL,
        evaluation=MEASURED,
    )
    dataset = classification(4, samples=20_000)
    data = split_of(spec, dataset)
    (found,) = fit(spec, data).evaluation.variance_shift
    x = data.train.x.double()
    c, v = x.mean(dim=0), x.var(dim=0)
    training = (c.square() + v) / (1 - rate) - c.square()
    assert found.layer == "layers.1.norm"
    assert found.eval_variance == pytest.approx(v.mean().item(), rel=1e-4)
    assert found.train_variance == pytest.approx(training.mean().item(), rel=0.03)
    exact = pytest.approx((v / training).mean().item(), rel=0.03)
    assert found.ratio == found.dropout_ratio == exact
    assert (found.direct_rates, found.upstream_rates) == ((rate,), ())


def test_over_weights_the_shift_is_that_of_the_weighted_sum() -> None:
    """Each input of a linear layer adds `w^2 p / (1 - p) (c^2 + v)` to the variance of its output."""
    rate, dataset = 0.5, classification(30, samples=20_000)
    spec = listed(
        layers.Dropout(rate=rate),
        layers.Linear(units=3, bias=False),
        layers.BatchNorm(),
        optimization=STILL,
        evaluation=MEASURED,
    )
    data = split_of(spec, dataset)
    result = fit(spec, data)
    (found,) = result.evaluation.variance_shift
    x = data.train.x.double()
    weight = result.model.get_parameter("layers.1.linear.weight").detach().double()
    plain = (x @ weight.T).var(dim=0)
    added = rate / (1 - rate) * (weight.square() @ x.square().mean(dim=0))
    assert found.eval_variance == pytest.approx(plain.mean().item(), rel=1e-3)
    assert found.train_variance == pytest.approx((plain + added).mean().item(), rel=0.03)
    assert (found.direct_rates, found.upstream_rates) == ((), (rate,))


def test_without_dropout_there_is_none() -> None:
    regularization = dn.Regularization(batch_norm=dn.BatchNorm())
    spec = mlp(8, optimization=STILL, evaluation=MEASURED, regularization=regularization)
    (found,) = fit(spec, split_of(spec, classification(6))).evaluation.variance_shift
    assert found.ratio == pytest.approx(1.0, abs=1e-6)
    assert found.dropout_ratio == pytest.approx(1.0, abs=1e-6)


def test_dropout_alone_is_told_from_running_statistics_that_lag() -> None:
    """After one step running statistics are far from those of the batches, and what they scale shifts as well."""
    spec = mlp(
        8,
        8,
        optimization=dn.Optimization(epochs=1, batch_size=1000),
        regularization=dn.Regularization(batch_norm=dn.BatchNorm(momentum=0.01)),
        evaluation=MEASURED,
    )
    first, second = fit(spec, split_of(spec, classification(6))).evaluation.variance_shift
    assert first.ratio == pytest.approx(1.0, abs=1e-6)
    assert abs(second.ratio - 1.0) > 0.1
    assert second.dropout_ratio == pytest.approx(1.0, abs=1e-6)


def both(**parts: Any) -> dn.TrainingSpec:
    dropout = dn.Dropout(rate=0.4, schedule=dn.LinearDropoutSchedule(start_factor=0.5))
    regularization = dn.Regularization(
        dropout=dropout, batch_norm=dn.BatchNorm(), order="dropout_then_norm"
    )
    return mlp(8, 8, optimization=asked(), regularization=regularization, **parts)


def test_measuring_changes_neither_the_network_nor_other_numbers() -> None:
    plain, measured = both(), both(evaluation=MEASURED)
    data = split_of(plain, regression(5))
    without, found = fit(plain, data), fit(measured, data)
    assert found.evaluation.test == without.evaluation.test
    weights = without.model.state_dict()
    for name, tensor in found.model.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    assert not any(module.training for module in found.model.modules())
    assert without.evaluation.variance_shift == ()


def test_auxiliary_heads_take_no_part() -> None:
    spec = mlp(
        optimization=dn.Optimization(epochs=1, batch_size=10),
        regularization=dn.Regularization(batch_norm=dn.BatchNorm()),
        evaluation=MEASURED,
    ).model_copy(update={"architecture": dn.GoogLeNet(width=0.1)})
    result = fit(spec, split_of(spec, classification(1, 28, 28, samples=40)))
    reached = {found.layer for found in result.evaluation.variance_shift}
    norms = {
        name
        for name, module in result.model.named_modules()
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d)
    }
    assert reached < norms
    assert all(found.eval_variance > 0 for found in result.evaluation.variance_shift)


def test_norms_of_tokens_are_measured_as_well() -> None:
    regularization = dn.Regularization(dropout=dn.Dropout(rate=0.3), batch_norm=dn.BatchNorm())
    spec = test_bert.asked(regularization=regularization, evaluation=MEASURED)
    evaluation = fit(spec, test_bert.data_of(spec, labelled=True)).evaluation
    first, *others = evaluation.variance_shift
    assert (first.dropout_ratio, first.direct_rates) == (1.0, ())
    assert all(found.direct_rates == (0.3,) for found in others)
    assert all(found.dropout_ratio < 1 for found in others)


def test_rates_are_those_in_force_in_the_chosen_epoch() -> None:
    spec = both(evaluation=MEASURED)
    evaluation = fit(spec, split_of(spec, classification(6))).evaluation
    rate = evaluation.history[evaluation.best_epoch - 1].dropout_rates["rate"]
    first, second = evaluation.variance_shift
    assert first.direct_rates == (rate,)
    assert second.upstream_rates == (rate,)
    assert first.ratio < 1


def test_running_variances_are_those_that_evaluation_divides_by() -> None:
    spec = both(evaluation=MEASURED)
    result = fit(spec, split_of(spec, classification(6)))
    for found in result.evaluation.variance_shift:
        running = result.model.get_buffer(f"{found.layer}.running_var")
        assert found.running_variance == pytest.approx(running.mean().item(), rel=1e-6)
