"""Which learning problem a training poses: what its architecture does with its data."""

from __future__ import annotations

from collections.abc import Mapping

from dropnorm.results import Task
from dropnorm.spec.architecture import Architecture

OWN_TASKS: Mapping[str, Task] = {"vae": "reconstruction", "gan": "generation"}
"""Kind of architecture -> what it does with any data. The others do what the data is for."""

WITH_ACCURACY: frozenset[Task] = frozenset(
    {"classification", "sequence_to_sequence", "masked_language_modelling"}
)
"""Tasks whose predictions are right or wrong."""

WITH_SMOOTHING: frozenset[Task] = frozenset(
    {"classification", "sequence_to_sequence", "masked_language_modelling"}
)
"""Tasks whose objective can smooth its labels."""


def task_of(architecture: Architecture, native: Task) -> Task:
    """The task of an architecture on data that is by itself for the task `native`."""
    return OWN_TASKS.get(architecture.kind, native)
