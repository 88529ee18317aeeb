"""What a spec's evaluation asks for besides the metrics of each split: whether it makes sense, and measuring it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dropnorm.results import (
    BeamSearch,
    DatasetSummary,
    MCDropout,
    Robustness,
    Task,
    TemperatureScaling,
    VarianceShift,
)
from dropnorm.spec import Problem, TrainingSpec
from dropnorm_service.training.evaluation import mc_dropout
from dropnorm_service.training.evaluation.beams import beams
from dropnorm_service.training.evaluation.robustness import robustness
from dropnorm_service.training.evaluation.temperature import temperature_scaling
from dropnorm_service.training.evaluation.trained import Trained
from dropnorm_service.training.evaluation.variance_shift import variance_shift

_SUPERVISED: tuple[Task, ...] = ("classification", "regression")
_TASKS: Mapping[str, tuple[Task, ...]] = {
    "mc_dropout_passes": _SUPERVISED,
    "temperature_scaling": ("classification",),
    "variance_shift": _SUPERVISED,
    "robustness": _SUPERVISED,
    "beam_width": ("sequence_to_sequence",),
}
"""Field of the spec's evaluation -> the tasks that it is for."""

_IMAGE = 3
"""Dimensions of a sample that is an image, `[channels, height, width]`."""


@dataclass(frozen=True)
class Measured:
    """What was asked for and measured, as `Evaluation` has it; None or empty: not asked for."""

    mc_dropout: MCDropout | None
    temperature_scaling: TemperatureScaling | None
    variance_shift: tuple[VarianceShift, ...]
    robustness: tuple[Robustness, ...]
    beam_search: BeamSearch | None


def measure(trained: Trained) -> Measured:
    """Measure what is asked for; the network is left as it was, in eval mode."""
    asked = trained.spec.evaluation
    inference, data, bins = trained.inference, trained.data, asked.calibration_bins
    return Measured(
        mc_dropout=_mc_dropout(trained, asked.mc_dropout_passes)
        if asked.mc_dropout_passes
        else None,
        temperature_scaling=temperature_scaling(inference, data, bins=bins)
        if asked.temperature_scaling
        else None,
        variance_shift=variance_shift(trained) if asked.variance_shift else (),
        robustness=robustness(trained) if asked.robustness else (),
        beam_search=beams(inference, data, width=asked.beam_width) if asked.beam_width else None,
    )


def _mc_dropout(trained: Trained, passes: int) -> MCDropout:
    inference, data, seed = trained.inference, trained.data, trained.spec.seed
    if data.summary.task == "regression":
        return mc_dropout.regression(inference, data, passes=passes, seed=seed)
    bins = trained.spec.evaluation.calibration_bins
    return mc_dropout.classification(inference, data, passes=passes, seed=seed, bins=bins)


def misfits(training: TrainingSpec, dataset: DatasetSummary) -> Iterator[Problem]:
    """What is asked for and not defined for the task or the samples."""
    for name, tasks in _TASKS.items():
        if getattr(training.evaluation, name) and dataset.task not in tasks:
            yield Problem(
                f"evaluation.{name}",
                f"this is a {dataset.task.replace('_', ' ')} of {dataset.name}, and it is defined for "
                f"{' and '.join(tasks).replace('_', ' ')} only; leave it out",
            )
    if training.evaluation.robustness and len(dataset.input_shape) != _IMAGE:
        yield Problem(
            "evaluation.robustness",
            f"it corrupts images, and the samples of {dataset.name} are none; leave it out",
        )
