"""Specs and data summaries in a few words, for the tests of this room."""

from __future__ import annotations

from typing import Any

from dropnorm import spec as dn
from dropnorm.results import DatasetSummary
from dropnorm.spec import layers
from dropnorm_service.training.layers import ACTIVATIONS, Shape

LAYERS: list[tuple[dn.Layer, Shape]] = [
    (layers.Linear(units=7), (5,)),
    (layers.Linear(units=7, bias=False), (5,)),
    (layers.Linear(units=7, dropconnect_rate=0.5), (5,)),
    (layers.Conv(channels=6), (3, 9, 7)),
    (layers.Conv(channels=6, kernel_size=4, stride=3, padding=2, dilation=2), (3, 19, 17)),
    (layers.Conv(channels=6, groups=3, bias=False), (9, 5, 5)),
    (layers.Pool(), (3, 9, 8)),
    (layers.Pool(mode="average", kernel_size=3, stride=2, padding=1), (3, 9, 8)),
    (layers.Pool(mode="max", kernel_size=3, stride=1, padding=1), (3, 9, 8)),
    (layers.Pool(mode="global_average"), (3, 9, 8)),
    (layers.Flatten(), (3, 4, 5)),
    (layers.Flatten(), (5,)),
    *((layers.Activation(function=function), (5,)) for function in ACTIVATIONS),
    (layers.Activation(function="leaky_relu", negative_slope=0.2), (5,)),
    (layers.Dropout(rate=0.5), (3, 4, 5)),
    (layers.Dropout(rate=0.5, rescaling="l2_norm"), (5,)),
    (layers.BatchNorm(), (5,)),
    (layers.BatchNorm(affine=False, track_running_stats=False), (3, 4, 5)),
    (layers.BatchNorm(ghost_batch_size=2, averaging="cumulative"), (3, 4, 5)),
    (layers.BatchNorm(synchronized=True), (5,)),
    (layers.Dropout(rate=0.5, method="spatial"), (3, 4, 5)),
    (layers.Dropout(rate=0.5, method="gaussian"), (5,)),
    (layers.Dropout(rate=0.5, method="alpha"), (5,)),
    (layers.LayerNorm(), (5,)),
    (layers.LayerNorm(affine=False), (3, 4, 5)),
    (layers.GroupNorm(groups=3), (6, 4, 5)),
    (layers.InstanceNorm(), (3, 4, 5)),
    (layers.RMSNorm(), (5,)),
    (layers.RMSNorm(affine=False), (3, 4, 5)),
]
"""Every kind of layer, in each of its forms, with the shape of a sample that it can take."""


def mlp(*hidden: int, activation: dn.ActivationFunction = "relu", **parts: Any) -> dn.TrainingSpec:
    """A TrainingSpec of an MLP; other parts by keyword."""
    return _spec(dn.MLP(hidden=hidden, activation=activation), parts)


def listed(*chain: dn.Layer, output_layer: bool = True, **parts: Any) -> dn.TrainingSpec:
    """A TrainingSpec of a Sequential; other parts by keyword."""
    return _spec(dn.Sequential(layers=chain, output_layer=output_layer), parts)


def asked(optimizer: dn.Optimizer | None = None, **parts: Any) -> dn.Optimization:
    """Three epochs of Adam in batches of 48, unless it is otherwise."""
    parts = {"epochs": 3, "batch_size": 48, **parts}
    return dn.Optimization(optimizer=optimizer or dn.Adam(lr=0.01), **parts)


def summary(
    *input_shape: int, outputs: int = 10, train: int = 1000, **parts: Any
) -> DatasetSummary:
    """A data set of samples of this shape, with 100 samples to validate and to test on."""
    values = {
        "name": "made",
        "task": "classification",
        "validation_samples": 100,
        "test_samples": 100,
        **parts,
    }
    return DatasetSummary(input_shape=input_shape, outputs=outputs, train_samples=train, **values)


def problems(error: dn.InvalidSpecError) -> dict[str, str]:
    """Field -> message."""
    return dict(error.problems)


def _spec(architecture: dn.Architecture, parts: dict[str, Any]) -> dn.TrainingSpec:
    return dn.TrainingSpec(architecture=architecture, **{"data": dn.Data(dataset="made"), **parts})
