"""Evaluation that knows dropout and batch norm, on a GPU: everything at once, repeatable and resumable."""

from pathlib import Path

import pytest
from tests.gpu.test_training_cuda import BOTH, BRIEF, CONVOLUTIONS
from tests.service.training.made import classification, of_kind
from tests.service.training.shorthand import listed
from tests.service.training.stopping import Asked, outcome, run, stopped_at, telling

from dropnorm import spec as dn
from dropnorm.results import EpochCompleted, Evaluation, Payload
from dropnorm_service.training import SplitData, fit
from dropnorm_service.training.data import split
from dropnorm_service.training.device import choose_device

pytestmark = pytest.mark.gpu

EVERYTHING = dn.EvaluationSettings(
    mc_dropout_passes=5,
    temperature_scaling=True,
    variance_shift=True,
    robustness=True,
    layer_report_epochs=1,
)


def asked(precision: str = "float32") -> tuple[dn.TrainingSpec, SplitData]:
    compute = dn.Compute.model_validate({"device": "cuda", "precision": precision})
    spec = listed(
        *CONVOLUTIONS,
        optimization=BRIEF,
        regularization=BOTH,
        evaluation=EVERYTHING,
        compute=compute,
    )
    return spec, split(spec, classification(2, 8, 8), choose_device(compute))


def measured(evaluation: Evaluation) -> tuple[object, ...]:
    reports = [epoch.layers for epoch in evaluation.history]
    uncertainty = evaluation.mc_dropout, evaluation.temperature_scaling
    return *uncertainty, evaluation.variance_shift, evaluation.robustness, reports


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_everything_is_measured_and_repeats(precision: str) -> None:
    spec, data = asked(precision)
    first, second = (fit(spec, data).evaluation for _ in range(2))
    assert measured(first) == measured(second)
    assert first.mc_dropout is not None
    assert first.mc_dropout.mutual_information is not None
    assert first.mc_dropout.mutual_information > 0
    assert len(first.variance_shift) == 2
    assert len(first.robustness) == 21
    norms = [row.gradient_norm for row in first.history[0].layers if row.gradient_norm is not None]
    assert len(norms) == 5
    assert all(0 < norm < 1e3 for norm in norms)


def test_a_stop_within_it_changes_no_number(tmp_path: Path) -> None:
    spec, data = asked()
    asked_for, events = Asked(), list[Payload]()
    whole = outcome(run(spec, data, asked_for, on_event=events.append))
    assert len(of_kind(events, EpochCompleted)) == 3
    assert outcome(stopped_at(telling(asked_for.places), spec, data, tmp_path)) == whole
