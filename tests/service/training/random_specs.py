"""Trainings made up from all that small ones can be made of, by a generator of random numbers."""

from __future__ import annotations

from random import Random
from typing import Any, TypeVar

from pydantic import ValidationError
from tests.service.training.made import split_of
from tests.service.training.resumption_cases import (
    AUGMENTATION,
    AUTOMATIC,
    AVERAGES,
    BATCH_SIZES,
    DROPOUT_SCHEDULES,
    DROPOUTS,
    INITIALIZATIONS,
    MLP,
    NORMS,
    OPTIMIZERS,
    SCHEDULES,
    SPLITS,
    case,
    dataset_of,
)
from tests.service.training.resumption_networks import IMAGES, LISTS

from dropnorm import spec as dn
from dropnorm_service.training import SplitData
from dropnorm_service.training.checks import check

T = TypeVar("T")


def made_up(draw: Random) -> tuple[dn.TrainingSpec, SplitData]:
    """The first training that is drawn and suits its data."""
    while True:
        try:
            spec = _drawn(draw)
            data = split_of(spec, dataset_of(spec))
            check(spec, data.summary)
        except (dn.InvalidSpecError, ValidationError):
            continue
        return spec, data


def _drawn(draw: Random) -> dn.TrainingSpec:
    networks: list[dn.Architecture] = [MLP, MLP, IMAGES, *LISTS.values()]
    architecture = draw.choice(networks)
    schedule = draw.choice([None, *DROPOUT_SCHEDULES])
    dropout = draw.choice(list(DROPOUTS.values())).model_copy(update={"schedule": schedule})
    images = architecture is not MLP
    data = draw.choice([dn.Data(dataset="made"), *SPLITS])
    if images and draw.random() < 0.3:
        data = data.model_copy(update={"augmentation": AUGMENTATION})
    optional: dict[str, Any] = {
        "warmup": dn.Warmup(epochs=1.5, start_factor=0.1),
        "micro_batch_size": draw.choice([3, 5, 8]),
        "gradient_clipping": dn.GradientClipping(max_norm=0.5),
        "early_stopping": dn.EarlyStopping(patience=1, min_delta=draw.choice([0.0, 0.5])),
        "batch_size_schedule": draw.choice(list(BATCH_SIZES.values())),
        **draw.choice(list(AUTOMATIC.values())),
    }
    return case(
        architecture,
        dn.Regularization(
            dropout=_perhaps(draw, dropout),
            batch_norm=_perhaps(draw, draw.choice([dn.BatchNorm(), *NORMS.values()])),
            max_norm=_perhaps(draw, 0.5),
            l1=_perhaps(draw, 1e-3) or 0.0,
        ),
        optimizer=draw.choice(list(OPTIMIZERS.values())),
        batch_size=draw.choice([7, 9, 12]),
        schedule=draw.choice(SCHEDULES),
        averaging=draw.choice(list(AVERAGES.values())),
        initialization=draw.choice([dn.Initialization(), *INITIALIZATIONS]),
        data=data,
        evaluation=dn.EvaluationSettings(
            train_metrics=draw.random() < 0.5,
            recalibrate_batch_norm=draw.choice([None, "dropout_off", "dropout_on"]),
            mc_dropout_passes=_perhaps(draw, 2),
            variance_shift=draw.random() < 0.3,
            temperature_scaling=draw.random() < 0.3,
            layer_report_epochs=_perhaps(draw, 2),
        ),
        seed=draw.choice([0, 7, 2**62]),
        **{name: value for name, value in optional.items() if draw.random() < 0.3},
    )


def _perhaps(draw: Random, value: T) -> T | None:
    return value if draw.random() < 0.6 else None
