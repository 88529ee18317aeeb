"""Dropout rates over a training: worked out by hand, in force in the network, recorded, and kept with a model."""

import math
import shutil
from pathlib import Path

import pytest
import torch
from tests.service.training.made import classification, split_of
from tests.service.training.shorthand import listed, mlp
from torch import nn

from dropnorm import spec as dn
from dropnorm.spec import layers
from dropnorm_service.training import (
    build_model,
    fit,
    load_model,
    plan,
    save_model,
)
from dropnorm_service.training.design import design
from dropnorm_service.training.dropout_rates import (
    FACTORS,
    DropoutRates,
    dropout_factor,
    rates_of,
)
from dropnorm_service.training.layers import Dropout
from dropnorm_service.training.step import compilation

OFF = dn.OffAfterDropoutSchedule(epochs=2)
RAMP = dn.LinearDropoutSchedule()


def factors(schedule: dn.DropoutSchedule | None, epochs: int) -> list[float]:
    dropout = dn.Dropout(schedule=schedule)
    return [dropout_factor(dropout, epoch=epoch, epochs=epochs) for epoch in range(1, epochs + 1)]


def regularized(schedule: dn.DropoutSchedule | None, **dropout: object) -> dn.Regularization:
    return dn.Regularization(
        dropout=dn.Dropout.model_validate({"rate": 0.5, "schedule": schedule, **dropout})
    )


def optimization(epochs: int) -> dn.Optimization:
    return dn.Optimization(epochs=epochs, batch_size=48)


def test_without_a_schedule_rates_stand_still() -> None:
    assert factors(None, 3) == [1, 1, 1]


def test_a_ramp_over_the_whole_training() -> None:
    assert factors(RAMP, 5) == [0, 0.25, 0.5, 0.75, 1]


def test_a_ramp_down_between_two_epochs() -> None:
    schedule = dn.LinearDropoutSchedule(start_factor=1.0, end_factor=0.5, from_epoch=2, to_epoch=4)
    assert factors(schedule, 6) == [1, 1, 0.75, 0.5, 0.5, 0.5]


def test_late_dropout_is_a_ramp_of_one_step() -> None:
    assert factors(dn.LinearDropoutSchedule(from_epoch=2, to_epoch=3), 4) == [0, 0, 1, 1]


def test_a_training_too_short_for_its_ramp_has_the_first_rate() -> None:
    assert factors(RAMP, 1) == [0]


def test_off_after_some_epochs() -> None:
    assert factors(OFF, 4) == [1, 1, 0, 0]


def test_curriculum_dropout_nears_the_full_rate() -> None:
    expected = [1 - math.exp(-0.5 * t) for t in range(4)]
    assert factors(dn.CurriculumDropoutSchedule(gamma=0.5), 4) == pytest.approx(expected)
    assert factors(dn.CurriculumDropoutSchedule(), 20)[10] == pytest.approx(1 - math.exp(-5))


def test_every_kind_has_a_factor() -> None:
    kinds: dict[str, dn.DropoutSchedule] = {
        "linear": RAMP,
        "off_after": OFF,
        "curriculum": dn.CurriculumDropoutSchedule(),
    }
    assert FACTORS.keys() == kinds.keys()
    for schedule in kinds.values():
        assert all(0 <= factor <= 1 for factor in factors(schedule, 30))


def test_every_placed_rate_follows_and_a_lists_own_stays() -> None:
    spec = listed(
        layers.Conv(channels=2),
        layers.Activation(),
        layers.Residual(layers=(layers.Conv(channels=2), layers.Dropout(rate=0.3))),
        layers.Flatten(),
        layers.Linear(units=4),
        layers.Activation(),
        regularization=regularized(
            RAMP,
            conv_rate=0.2,
            input_rate=0.1,
            output_rate=0.4,
            stochastic_depth_rate=0.6,
            dropconnect_rate=0.7,
        ),
        optimization=optimization(3),
    )
    model = build_model(spec, (1, 4, 4), 3)
    rates = DropoutRates(model, design(spec, (1, 4, 4), 3), spec)
    full = rates_of(model)
    assert sorted(full.values()) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    own = next(name for name, rate in full.items() if rate == 0.3)
    for epoch, factor in enumerate((0.0, 0.5, 1.0), start=1):
        rates.enter(epoch)
        now = rates_of(model)
        assert now.pop(own) == 0.3
        assert now == {name: rate * factor for name, rate in full.items() if name != own}


def test_the_rate_in_force_is_what_an_epoch_drops_and_records(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = mlp(16, optimization=optimization(3), regularization=regularized(RAMP))
    seen: list[float] = []
    forward = Dropout.forward

    def watched(module: Dropout, x: torch.Tensor) -> torch.Tensor:
        if module.training:
            seen.append(module.rate)
        return forward(module, x)

    monkeypatch.setattr(Dropout, "forward", watched)
    history = fit(spec, split_of(spec, classification(6))).evaluation.history
    assert [epoch.dropout_rates for epoch in history] == [{"rate": each} for each in (0, 0.25, 0.5)]
    assert seen == sorted(seen)
    assert set(seen) == {0, 0.25, 0.5}


def test_constant_rates_are_recorded_and_those_that_are_off_are_not() -> None:
    inputs = dn.Regularization(dropout=dn.Dropout(rate=0.0, input_rate=0.25))
    for regularization, expected in (
        (regularized(None), {"rate": 0.5}),
        (inputs, {"input_rate": 0.25}),
        (
            regularized(None, conv_rate=0.1, recurrent_rate=0.2),
            {"rate": 0.5},
        ),  # nothing of the kind
        (dn.Regularization(), {}),
    ):
        spec = mlp(4, optimization=optimization(1), regularization=regularization)
        (epoch,) = fit(spec, split_of(spec, classification(6))).evaluation.history
        assert epoch.dropout_rates == expected


def test_a_model_keeps_the_rates_of_its_epoch(tmp_path: Path) -> None:
    """`at_inference` scales evaluation by the rate that the weights were trained with."""
    spec = mlp(
        16,
        optimization=optimization(3),
        regularization=regularized(RAMP, rescaling="at_inference"),
    )
    data = split_of(spec, classification(6))
    result = fit(spec, data)
    best = result.evaluation.history[result.evaluation.best_epoch - 1]
    assert rates_of(result.model) == {"hidden.0.dropout": best.dropout_rates["rate"]}
    assert best.validation_loss == pytest.approx(result.evaluation.validation.loss, rel=1e-5)
    save_model(tmp_path, spec, data, result.model)
    loaded = load_model(tmp_path)
    assert rates_of(loaded.network) == rates_of(result.model)
    with torch.inference_mode():
        torch.testing.assert_close(loaded.network(data.test.x), result.model(data.test.x))


def test_plan_says_what_the_schedule_comes_to() -> None:
    spec = mlp(8, optimization=optimization(3), regularization=regularized(RAMP))
    data = split_of(spec, classification(6)).summary
    (row,) = (row for row in plan(spec, data).layers if row.type.startswith("Dropout"))
    assert row.type == "Dropout(0.5, inverted), times 0 at first and 1 at last"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_network_drops_at_each_of_many_rates() -> None:
    """More rates than torch keeps versions of by itself, none of them stale."""
    from torch._dynamo.utils import counters

    torch.compiler.reset()
    before = counters["stats"]["unique_graphs"]
    module = Dropout(0.5)
    network = nn.Sequential(nn.Linear(1, 1, bias=False), module)
    nn.init.ones_(network[0].weight)  # type: ignore[arg-type]
    compiled = torch.compile(network, dynamic=False)
    x = torch.ones(20_000, 1)
    with compilation(dn.Compute(compile=True)):
        for share in range(1, 13):
            module.rate = share / 16
            dropped = (compiled(x) == 0).double().mean().item()
            assert dropped == pytest.approx(module.rate, abs=0.02)
    assert counters["stats"]["unique_graphs"] - before == 12
