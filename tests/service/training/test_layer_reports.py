"""Layer reports against outputs and gradients computed by hand, and what reporting leaves alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from pydantic import BaseModel
from tests.service.training import test_bert, test_transformer
from tests.service.training.made import classification, regression, split_of
from tests.service.training.shorthand import asked, listed, mlp, problems, summary
from torch import Tensor, nn
from torch.nn import functional as F

from dropnorm import spec as dn
from dropnorm.results import EpochMetrics, LayerReport
from dropnorm.spec import layers
from dropnorm_service.training import check, checkpoint, fit
from dropnorm_service.training.evaluation import layer_report
from dropnorm_service.training.evaluation.layers import MOST_IN_ALL
from dropnorm_service.workers.frames import MAX_MESSAGE_BYTES

BOTH = dn.Regularization(dropout=dn.Dropout(rate=0.4), batch_norm=dn.BatchNorm())


def reporting(every: int = 1) -> dn.EvaluationSettings:
    return dn.EvaluationSettings(layer_report_epochs=every)


def by_layer(report: tuple[LayerReport, ...]) -> dict[str, LayerReport]:
    return {row.layer: row for row in report}


def test_outputs_and_gradients_are_those_worked_out_by_hand() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(7, 4).double(), torch.randn(7, 2).double()
    network = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2, bias=False)).double()
    found = by_layer(layer_report(network, lambda: F.mse_loss(network(x), y), scale=1024.0))

    first, last = network[0].get_parameter("weight"), network[2].get_parameter("weight")
    hidden = x @ first.T + network[0].get_parameter("bias")
    active = hidden.tanh()
    outputs = active @ last.T
    error = 2.0 * (outputs - y) / y.numel()
    of_last = error.T @ active
    of_hidden = (error @ last) * (1.0 - active.square())
    of_first = torch.cat([(of_hidden.T @ x).flatten(), of_hidden.sum(dim=0)])
    assert list(found) == ["0", "1", "2"]
    assert found["0"].gradient_norm == pytest.approx(of_first.norm().item(), rel=1e-6)
    assert found["2"].gradient_norm == pytest.approx(of_last.norm().item(), rel=1e-6)
    assert found["1"].gradient_norm is None
    for name, values in (("0", hidden), ("1", active), ("2", outputs)):
        assert found[name].mean == pytest.approx(values.mean().item(), abs=1e-6)
        assert found[name].variance == pytest.approx(values.var(correction=0).item(), rel=1e-5)
    assert found["0"].dead_share is None
    assert found["1"].dead_share == 0.0
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 3, 3), (6, 5, 4)])
def test_a_dead_unit_is_zero_for_every_sample_and_place(shape: tuple[int, ...]) -> None:
    """Of four features or channels two are always negative, one is so but for one value, and one is positive."""
    x = torch.full(shape, -1.0)
    features = x.movedim(1 if len(shape) == 4 else -1, 0)
    features[1][(0,) * (features.ndim - 1)] = 1.0
    features[2] = 1.0
    network = nn.Sequential(nn.ReLU(), nn.Linear(shape[-1], 1))

    def loss() -> Tensor:
        outputs: Tensor = network(x)
        return outputs.sum()

    assert by_layer(layer_report(network, loss))["0"].dead_share == 0.5


def test_what_never_runs_is_left_out_and_what_is_frozen_has_no_gradient() -> None:
    network = nn.ModuleDict({name: nn.Linear(2, 2) for name in ("used", "frozen", "unused")})
    network["frozen"].requires_grad_(False)

    def loss() -> Tensor:
        output: Tensor = network["used"](network["frozen"](torch.ones(3, 2)))
        return output.sum()

    found = by_layer(layer_report(network, loss))
    assert list(found) == ["frozen", "used"]  # in the order in which they run
    assert found["frozen"].gradient_norm is None
    assert found["used"].gradient_norm is not None


def spec_of(every: int | None = 1, **parts: Any) -> dn.TrainingSpec:
    evaluation = dn.EvaluationSettings(layer_report_epochs=every)
    return mlp(8, 8, optimization=asked(**parts), regularization=BOTH, evaluation=evaluation)


def test_reports_come_after_every_so_many_epochs() -> None:
    spec = spec_of(2, epochs=5)
    history = fit(spec, split_of(spec, classification(6))).evaluation.history
    assert [bool(epoch.layers) for epoch in history] == [False, True, False, True, False]
    names = [row.layer for row in history[1].layers]
    assert names[0] == "hidden.0.linear"
    assert names[-1] == "output.linear"
    assert {"hidden.0.norm", "hidden.0.activation"} <= set(names)
    assert not any("dropout" in name for name in names)


def test_a_report_of_the_first_step_is_that_of_a_step_by_hand() -> None:
    """With a learning rate that moves nothing, of a network without dropout: one batch, as in training."""
    spec = mlp(
        8,
        optimization=dn.Optimization(optimizer=dn.SGD(lr=1e-12), epochs=1, batch_size=1000),
        regularization=dn.Regularization(batch_norm=dn.BatchNorm()),
        evaluation=reporting(),
    )
    data = split_of(spec, regression(5))
    result = fit(spec, data)
    found = by_layer(result.evaluation.history[0].layers)
    network = result.model.train()
    F.mse_loss(network(data.train.x), data.train.y).backward()  # the whole split is one batch
    for name in ("hidden.0.linear", "hidden.0.norm", "output.linear"):
        module = network.get_submodule(name)
        gradients = [p.grad.flatten() for p in module.parameters() if p.grad is not None]
        exact = torch.cat(gradients).norm().item()
        assert found[name].gradient_norm == pytest.approx(exact, rel=1e-3, abs=1e-7), name


def test_reporting_changes_no_other_number() -> None:
    data = split_of(spec_of(), classification(6))
    without, found = fit(spec_of(None), data), fit(spec_of(), data)
    assert found.evaluation.test == without.evaluation.test
    weights = without.model.state_dict()
    for name, tensor in found.model.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    losses = [(epoch.train_loss, epoch.validation_loss) for epoch in found.evaluation.history]
    assert losses == [
        (epoch.train_loss, epoch.validation_loss) for epoch in without.evaluation.history
    ]


@pytest.mark.parametrize(
    ("architecture", "shape"),
    [
        (dn.VAE(hidden=(8,), latent=2), (1, 6, 6)),
        (dn.ResNet(depth=20), (3, 8, 8)),
        (dn.GoogLeNet(width=0.1), (1, 28, 28)),
    ],
)
def test_networks_of_any_kind_report(architecture: Any, shape: tuple[int, ...]) -> None:
    spec = mlp(
        optimization=dn.Optimization(epochs=1, batch_size=8),
        evaluation=reporting(),
    ).model_copy(update={"architecture": architecture})
    data = split_of(spec, classification(*shape, samples=30))
    report = fit(spec, data).evaluation.history[0].layers
    weighted = [row for row in report if row.gradient_norm is not None]
    assert len(weighted) > 3
    assert (
        sum(row.gradient_norm > 0 for row in weighted if row.gradient_norm is not None)
        > len(weighted) / 2
    )
    assert any(row.dead_share is not None for row in report)


def test_a_list_of_layers_reports_by_its_names() -> None:
    spec = listed(
        layers.Conv(channels=4),
        layers.Activation(),
        layers.Pool(mode="global_average"),
        optimization=dn.Optimization(epochs=1),
        evaluation=reporting(),
    )
    report = fit(spec, split_of(spec, classification(2, 6, 6))).evaluation.history[0].layers
    assert [row.layer for row in report] == [
        "layers.0.conv",
        "layers.1.activation",
        "output.linear",
    ]


def test_networks_of_tokens_report() -> None:
    parts = {"optimization": dn.Optimization(epochs=1), "evaluation": reporting()}
    transformer, masked = (
        test_transformer.asked(**parts),
        test_bert.asked().model_copy(update=parts),
    )
    for spec, data in (
        (transformer, test_transformer.data_of(transformer)),
        (masked, test_bert.data_of(masked)),
    ):
        report = fit(spec, data).evaluation.history[0].layers
        assert any("embedding" in row.layer for row in report)
        assert sum(row.gradient_norm is not None for row in report) > 10


def test_more_reports_than_can_be_kept_are_refused_with_how_many_can() -> None:
    data = summary(6)
    for every in (1, 13):
        with pytest.raises(dn.InvalidSpecError) as refused:
            check(spec_of(every, epochs=100_000), data)
        message = problems(refused.value)["evaluation.layer_report_epochs"]
        assert f"7 layers would be reported {100_000 // every:,} times" in message
        assert "at most 50,000 reports of a layer; give at least 14" in message
    check(spec_of(14, epochs=100_000), data)


def test_the_longest_history_goes_into_a_checkpoint_and_into_a_message() -> None:
    number = -1.2345678901234567e-100
    row = LayerReport(
        layer="x" * 60, mean=number, variance=number, gradient_norm=number, dead_share=number
    )
    scores = {name for name in EpochMetrics.model_fields if name.startswith("train_eval_")}
    epoch = EpochMetrics.model_validate(
        {
            "epoch": 100_000,
            "step": 10**9,
            "train_loss": number,
            "learning_rate": number,
            "batch_size": 10**6,
            "seconds": number,
            "evaluation_seconds": number,
            "samples_per_second": number,
            "dropout_rates": {"regularization.dropout.rate": number, "input_rate": number},
            **dict.fromkeys(scores, number),
            **{name.replace("train_eval_", "validation_"): number for name in scores},
        }
    )
    facts = 100_000 * _bytes(epoch) + MOST_IN_ALL * _bytes(row)
    assert facts < min(checkpoint._LARGEST_MANIFEST, MAX_MESSAGE_BYTES)


def _bytes(value: BaseModel) -> int:
    return len(json.dumps(value.model_dump())) + len(", ")
