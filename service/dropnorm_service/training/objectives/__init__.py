"""Kinds of learning problems: what is minimised, and how a split is judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dropnorm.results import Task
from dropnorm.spec import TrainingSpec
from dropnorm_service.training.data import SplitData
from dropnorm_service.training.objectives.base import Forward, Objective
from dropnorm_service.training.objectives.generation import Generation
from dropnorm_service.training.objectives.masked_language import MaskedLanguageModelling
from dropnorm_service.training.objectives.reconstruction import Reconstruction
from dropnorm_service.training.objectives.sequence_to_sequence import SequenceToSequence
from dropnorm_service.training.objectives.supervised import Classification, Regression

OBJECTIVES: Mapping[Task, Callable[[TrainingSpec, SplitData], Objective]] = {
    "classification": Classification,
    "regression": Regression,
    "reconstruction": Reconstruction,
    "generation": Generation,
    "sequence_to_sequence": SequenceToSequence,
    "masked_language_modelling": MaskedLanguageModelling,
}
"""Task -> its objective."""


def objective_of(spec: TrainingSpec, data: SplitData) -> Objective:
    """The objective of a training."""
    return OBJECTIVES[data.summary.task](spec, data)


__all__ = ["OBJECTIVES", "Forward", "Objective", "objective_of"]
