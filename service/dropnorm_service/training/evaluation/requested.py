"""What a spec's evaluation asks for besides the metrics of each split: whether it makes sense, and measuring it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dropnorm.results import DatasetSummary, MCDropout, Task, TemperatureScaling
from dropnorm.spec import Problem, TrainingSpec
from dropnorm_service.training.data import SplitData
from dropnorm_service.training.evaluation import mc_dropout
from dropnorm_service.training.evaluation.temperature import temperature_scaling
from dropnorm_service.training.inference import Inference

_TASKS: Mapping[str, tuple[Task, ...]] = {
    "mc_dropout_passes": ("classification", "regression"),
    "temperature_scaling": ("classification",),
}
"""Field of the spec's evaluation -> the tasks that it is for."""


@dataclass(frozen=True)
class Measured:
    """What was asked for and measured, as `Evaluation` has it; None: not asked for."""

    mc_dropout: MCDropout | None
    temperature_scaling: TemperatureScaling | None


def measure(inference: Inference, spec: TrainingSpec, data: SplitData) -> Measured:
    """Measure what is asked for.

    Args:
        inference: runs the network at its final weights; it is left as it was, in eval mode.
        spec: says what is asked for.
        data: its data.
    """
    asked = spec.evaluation
    return Measured(
        mc_dropout=_mc_dropout(inference, spec, data),
        temperature_scaling=temperature_scaling(inference, data, bins=asked.calibration_bins)
        if asked.temperature_scaling
        else None,
    )


def _mc_dropout(inference: Inference, spec: TrainingSpec, data: SplitData) -> MCDropout | None:
    passes, seed = spec.evaluation.mc_dropout_passes, spec.seed
    if passes is None:
        return None
    if data.summary.task == "regression":
        return mc_dropout.regression(inference, data, passes=passes, seed=seed)
    bins = spec.evaluation.calibration_bins
    return mc_dropout.classification(inference, data, passes=passes, seed=seed, bins=bins)


def misfits(training: TrainingSpec, dataset: DatasetSummary) -> Iterator[Problem]:
    """What is asked for and not defined for the task."""
    for name, tasks in _TASKS.items():
        if getattr(training.evaluation, name) and dataset.task not in tasks:
            yield Problem(
                f"evaluation.{name}",
                f"this is a {dataset.task.replace('_', ' ')} of {dataset.name}, and it is defined for "
                f"{' and '.join(tasks)} only; leave it out",
            )
