"""Classes or numbers to be told from the input."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from dropnorm.results import Metrics
from dropnorm.spec import TrainingSpec
from dropnorm_service.training.data import Split, SplitData
from dropnorm_service.training.inference import Inference
from dropnorm_service.training.metrics import classification_metrics, regression_metrics
from dropnorm_service.training.objectives.base import Forward
from dropnorm_service.training.pictures import Pictures


class Supervised(ABC):
    """A loss of the network's outputs `[batch, outputs]` against the batch's targets."""

    score_names: ClassVar[tuple[str, ...]]

    def __init__(self, outputs: int) -> None:
        self._outputs = outputs

    @abstractmethod
    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The mean loss of a batch in training, differentiable."""

    @abstractmethod
    def judge(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The scores of the outputs of a whole split: float64 `[len(score_names)]`."""

    @abstractmethod
    def describe(self, outputs: Tensor, y: Tensor) -> Metrics:
        """Everything there is to say of the outputs of a whole split."""

    def training_loss(self, forward: Forward, x: Tensor, y: Tensor) -> Tensor:
        return self.loss(forward(x), y)

    def weight(self, x: Tensor, y: Tensor) -> int:
        return len(x)

    def scores(self, inference: Inference, part: Split) -> Tensor:
        return self.judge(inference.outputs(part, self._outputs), part.y)

    def metrics(self, inference: Inference, part: Split) -> Metrics:
        return self.describe(inference.outputs(part, self._outputs), part.y)

    def pictures(self, inference: Inference) -> Pictures:
        return {}


class Classification(Supervised):
    """Cross-entropy of logits `[batch, classes]` against classes `[batch]`.

    In training labels may be smoothed, or be shares of the classes `[batch, classes]`; a split is judged by the
    true ones.
    """

    score_names = ("loss", "accuracy")

    def __init__(self, spec: TrainingSpec, data: SplitData) -> None:
        super().__init__(data.outputs)
        self._class_names = data.summary.class_names
        self._bins = spec.evaluation.calibration_bins
        self._smoothing = spec.regularization.label_smoothing or 0.0

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(outputs.float(), y, label_smoothing=self._smoothing)

    def judge(self, outputs: Tensor, y: Tensor) -> Tensor:
        losses = F.cross_entropy(outputs.float(), y, reduction="none")
        correct = outputs.argmax(dim=1) == y
        return torch.stack([losses.mean(dtype=torch.float64), correct.mean(dtype=torch.float64)])

    def describe(self, outputs: Tensor, y: Tensor) -> Metrics:
        return classification_metrics(outputs, y, class_names=self._class_names, bins=self._bins)

    def gap(self, train: Metrics, test: Metrics) -> float:
        """Accuracy of train minus that of test."""
        return (train.accuracy or 0.0) - (test.accuracy or 0.0)


class Regression(Supervised):
    """Mean squared error of outputs `[batch, targets]` against standardised targets of that shape."""

    score_names = ("loss",)

    def __init__(self, spec: TrainingSpec, data: SplitData) -> None:
        super().__init__(data.outputs)
        assert data.targets is not None  # a regression's data has its targets standardised
        self._targets = data.targets

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(outputs.float(), y)

    def judge(self, outputs: Tensor, y: Tensor) -> Tensor:
        return (outputs.float() - y).square().mean(dtype=torch.float64).unsqueeze(0)

    def describe(self, outputs: Tensor, y: Tensor) -> Metrics:
        undo, loss = self._targets.undo, self.judge(outputs, y).item()
        return regression_metrics(undo(outputs.float()), undo(y), loss=loss)

    def gap(self, train: Metrics, test: Metrics) -> float:
        """Mean squared error of test minus that of train."""
        return (test.mse or 0.0) - (train.mse or 0.0)
