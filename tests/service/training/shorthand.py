"""Specs and data summaries in a few words, for the tests of this room."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dropnorm import spec as dn
from dropnorm.results import DatasetSummary


def mlp(*hidden: int, activation: dn.ActivationFunction = "relu", **parts: Any) -> dn.TrainingSpec:
    """A TrainingSpec of an MLP; other parts by keyword."""
    return _spec(dn.MLP(hidden=hidden, activation=activation), parts)


def listed(*layers: dn.Layer, output_layer: bool = True, **parts: Any) -> dn.TrainingSpec:
    """A TrainingSpec of a Sequential; other parts by keyword."""
    return _spec(dn.Sequential(layers=tuple(layers), output_layer=output_layer), parts)


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


def kinds(names: Iterable[str]) -> list[str]:
    """The last parts of module names."""
    return [name.rpartition(".")[2] for name in names]


def _spec(architecture: dn.Architecture, parts: dict[str, Any]) -> dn.TrainingSpec:
    return dn.TrainingSpec(architecture=architecture, **{"data": dn.Data(dataset="made"), **parts})
