"""A few small trainings that differ in what a checkpoint has to hold, and what they come to undisturbed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import dropnorm as dn
from dropnorm import layers
from dropnorm.results import Evaluation

_BOTH = dn.Regularization(
    dropout=dn.Dropout(rate=0.3, input_rate=0.1), batch_norm=dn.BatchNorm(momentum=0.1)
)
_CPU = dn.Compute(device="cpu")


def _digits(epochs: int, *, optimization: Any = None, **parts: Any) -> dn.TrainingSpec:
    whole: dict[str, Any] = {
        "architecture": dn.MLP(hidden=(32,)),
        "regularization": _BOTH,
        "optimization": dn.Optimization(epochs=epochs, batch_size=64, **(optimization or {})),
        "data": dn.Data(dataset="digits"),
        "compute": _CPU,
        "seed": 7,
    }
    return dn.TrainingSpec(**whole | parts)


SPECS: Mapping[str, dn.TrainingSpec] = {
    "dropout and batch norm": _digits(25),
    "momentum, cosine, warm-up": _digits(
        25,
        optimization={
            "optimizer": dn.SGD(lr=0.1, momentum=0.9),
            "schedule": dn.CosineSchedule(),
            "warmup": dn.Warmup(epochs=2),
        },
    ),
    "early stopping": _digits(
        60,
        optimization={
            "optimizer": dn.Adam(lr=0.02),
            "early_stopping": dn.EarlyStopping(patience=6),
        },
    ),
    "moving average": _digits(
        20,
        optimization={"averaging": dn.EMA(decay=0.99)},
        evaluation=dn.EvaluationSettings(mc_dropout_passes=5, temperature_scaling=True),
    ),
    "convolutions, augmented": _digits(
        6,
        architecture=dn.Sequential(
            layers=(
                layers.Conv(channels=4),
                layers.Activation(),
                layers.Pool(mode="global_average"),
                layers.Flatten(),
            )
        ),
        data=dn.Data(dataset="digits", augmentation=dn.Augmentation(noise_std=0.1)),
    ),
    "instant": dn.TrainingSpec(
        architecture=dn.MLP(hidden=(8,)),
        optimization=dn.Optimization(epochs=2),
        data=dn.Data(dataset="iris"),
        compute=_CPU,
    ),
}

_TIMES = frozenset(
    {
        "seconds",
        "evaluation_seconds",
        "training_seconds",
        "seconds_to_best",
        "samples_per_second",
        "peak_memory_bytes",
    }
)

Numbers = Mapping[str, Any]


def numbers(evaluation: Evaluation) -> Numbers:
    """Everything in an evaluation that must be the same, bit for bit: all but times and memory."""
    found: Numbers = _timeless(evaluation.model_dump())
    return found


async def references(client: dn.AsyncClient) -> Mapping[str, Numbers]:
    """What each spec comes to, asked of a service that nobody disturbs."""
    jobs = {name: await client.train(spec) for name, spec in SPECS.items()}
    results = await asyncio.gather(*(job.result() for job in jobs.values()))
    return dict(zip(jobs, map(numbers, results), strict=True))


def _timeless(found: Any) -> Any:
    if isinstance(found, dict):
        return {key: _timeless(value) for key, value in found.items() if key not in _TIMES}
    if isinstance(found, list | tuple):
        return [_timeless(each) for each in found]
    # NaN is not equal to itself; its text is.
    return repr(found) if isinstance(found, float) else found
