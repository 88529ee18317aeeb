"""What a measurement works on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dropnorm.spec import TrainingSpec
from dropnorm_service.training.batching import Batching
from dropnorm_service.training.data import SplitData
from dropnorm_service.training.design import Design
from dropnorm_service.training.inference import Inference
from dropnorm_service.training.objectives import Objective


@dataclass(frozen=True)
class Trained:
    """A network at its final weights, and what it was trained with.

    Attributes:
        inference: runs it.
        spec: what was asked for.
        data: its data.
        paper: its layers.
        objective: judges what it says.
        batching: how the training split was cut in the epoch whose weights it has.
        train_mode: puts it into training mode, as it was in that epoch.
    """

    inference: Inference
    spec: TrainingSpec
    data: SplitData
    paper: Design
    objective: Objective
    batching: Batching
    train_mode: Callable[[], None]
