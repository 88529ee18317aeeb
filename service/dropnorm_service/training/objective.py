"""What a training minimises and how a split is judged: all that differs between kinds of task.

The loop treats a loss as a tensor that it sums for the backward pass and never as one number, so an
objective may return a loss per model.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from dropnorm.results import Metrics
from dropnorm.spec import EvaluationSettings
from dropnorm_service.training.data import SplitData, Standardization
from dropnorm_service.training.metrics import classification_metrics, regression_metrics


class Objective(Protocol):
    """A kind of learning problem."""

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The mean loss of a batch, differentiable, on the device."""

    def scores(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Loss and, in classification, accuracy over a whole split: float64 `[2]` or `[1]`, on the device."""

    def metrics(self, outputs: Tensor, y: Tensor) -> Metrics:
        """Everything there is to say of a split."""

    def gap(self, train: Metrics, test: Metrics) -> float:
        """How much worse test is than train."""


class Classification:
    """Cross-entropy of logits `[batch, classes]` against classes `[batch]`."""

    def __init__(self, class_names: tuple[str, ...], bins: int) -> None:
        self._class_names = class_names
        self._bins = bins

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(outputs.float(), y)

    def scores(self, outputs: Tensor, y: Tensor) -> Tensor:
        losses = F.cross_entropy(outputs.float(), y, reduction="none")
        correct = outputs.argmax(dim=1) == y
        return torch.stack([losses.mean(dtype=torch.float64), correct.mean(dtype=torch.float64)])

    def metrics(self, outputs: Tensor, y: Tensor) -> Metrics:
        return classification_metrics(outputs, y, class_names=self._class_names, bins=self._bins)

    def gap(self, train: Metrics, test: Metrics) -> float:
        """Accuracy of train minus that of test."""
        return (train.accuracy or 0.0) - (test.accuracy or 0.0)


class Regression:
    """Mean squared error of outputs `[batch, targets]` against standardised targets of that shape."""

    def __init__(self, targets: Standardization) -> None:
        self._targets = targets

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(outputs.float(), y)

    def scores(self, outputs: Tensor, y: Tensor) -> Tensor:
        return (outputs.float() - y).square().mean(dtype=torch.float64).unsqueeze(0)

    def metrics(self, outputs: Tensor, y: Tensor) -> Metrics:
        undo = self._targets.undo
        return regression_metrics(
            undo(outputs.float()), undo(y), loss=self.scores(outputs, y).item()
        )

    def gap(self, train: Metrics, test: Metrics) -> float:
        """Mean squared error of test minus that of train."""
        return (test.mse or 0.0) - (train.mse or 0.0)


def objective_of(data: SplitData, evaluation: EvaluationSettings) -> Objective:
    """The objective that the data's task asks for."""
    if data.targets is not None:
        return Regression(data.targets)
    return Classification(data.summary.class_names, evaluation.calibration_bins)
