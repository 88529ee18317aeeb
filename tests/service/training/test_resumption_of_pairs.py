"""What has a state or a clock, two and more at a time: stopped in each phase it ends bit for bit the same."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from tests.service.training.made import classification, split_of
from tests.service.training.resumption_cases import (
    AUTOMATIC,
    AVERAGES,
    BATCH_SIZES,
    BOTH,
    DROPOUT_SCHEDULES,
    MLP,
    SCHEDULES,
    case,
)
from tests.service.training.resumption_networks import CONVOLUTIONS
from tests.service.training.stopping import Asked, Place, of_phase, outcome, run, stopped_at

from dropnorm import spec as dn

RESCALINGS = ("inverted", "at_inference", "l2_norm")
NORMS: dict[str, dn.BatchNorm] = {
    "frozen": dn.BatchNorm(freeze_after=1),
    "ghosts": dn.BatchNorm(ghost_batch_size=4),
    "cumulative": dn.BatchNorm(averaging="cumulative"),
}
BESIDE_NORMS: dict[str, dict[str, Any]] = {
    "micro batches": {"micro_batch_size": 8},
    "ema": {"averaging": AVERAGES["ema"]},
    "swa": {"averaging": AVERAGES["swa"]},
    **{
        f"recalibrated, {how}": {
            "evaluation": dn.EvaluationSettings.model_validate({"recalibrate_batch_norm": how})
        }
        for how in ("dropout_off", "dropout_on")
    },
}


def dropping(schedule: dn.DropoutSchedule, rescaling: str) -> dn.Regularization:
    dropout = {"rate": 0.4, "schedule": schedule, "rescaling": rescaling}
    return dn.Regularization(dropout=dn.Dropout.model_validate(dropout), batch_norm=dn.BatchNorm())


PAIRS: dict[str, dn.TrainingSpec] = {
    **{
        f"automatic {auto}, {schedule.kind}, {rescaling}, {average}": case(
            MLP,
            dropping(schedule, rescaling),
            averaging=AVERAGES[average],
            evaluation=dn.EvaluationSettings(
                mc_dropout_passes=2, recalibrate_batch_norm="dropout_on"
            ),
            **AUTOMATIC[auto],
        )
        for auto, schedule, rescaling, average in itertools.product(
            AUTOMATIC, DROPOUT_SCHEDULES, RESCALINGS, AVERAGES
        )
    },
    **{
        f"{norm}, {beside}": case(
            CONVOLUTIONS,
            BOTH.model_copy(update={"batch_norm": NORMS[norm]}),
            **BESIDE_NORMS[beside],
        )
        for norm, beside in itertools.product(NORMS, BESIDE_NORMS)
    },
    **{
        f"sizes by {sizes}, {schedule.kind}": case(
            batch_size=9, batch_size_schedule=BATCH_SIZES[sizes], schedule=schedule
        )
        for sizes, schedule in itertools.product(BATCH_SIZES, SCHEDULES)
    },
}


def middles(places: list[Place]) -> list[Place]:
    """One place in each phase of the training itself."""
    found = (of_phase(places, phase) for phase in ("training", "validating", "testing"))
    return [each[len(each) // 2] for each in found]


@pytest.mark.parametrize("name", PAIRS)
def test_a_stop_in_each_phase_changes_no_bit(name: str, tmp_path: Path) -> None:
    spec = PAIRS[name]
    shape = (6,) if spec.architecture.kind == "mlp" else (1, 8, 8)
    data, asked = split_of(spec, classification(*shape, samples=60)), Asked()
    whole = outcome(run(spec, data, asked))
    assert outcome(stopped_at(middles(asked.places), spec, data, tmp_path)) == whole
