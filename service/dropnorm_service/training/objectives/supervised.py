"""Classes or numbers to be told from the input."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from dropnorm.results import Metrics
from dropnorm.spec import TrainingSpec
from dropnorm_service.training.batching import pieces
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
    def judge(self, outputs: Tensor, y: Tensor, between: Callable[[], None]) -> Tensor:
        """The scores of the outputs of a whole split: float64 `[len(score_names)]`.

        Now and then `between` is called; what it raises ends the judgement.
        """

    @abstractmethod
    def describe(self, outputs: Tensor, y: Tensor, between: Callable[[], None]) -> Metrics:
        """Everything there is to say of the outputs of a whole split; likewise."""

    def training_loss(self, forward: Forward, x: Tensor, y: Tensor) -> Tensor:
        return self.loss(forward(x), y)

    def weight(self, x: Tensor, y: Tensor) -> int:
        return len(x)

    def scores(self, inference: Inference, part: Split) -> Tensor:
        outputs = inference.outputs(part, self._outputs)
        return self.judge(outputs, part.y, inference.between_batches)

    def metrics(self, inference: Inference, part: Split) -> Metrics:
        outputs = inference.outputs(part, self._outputs)
        return self.describe(outputs, part.y, inference.between_batches)

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

    def judge(self, outputs: Tensor, y: Tensor, between: Callable[[], None]) -> Tensor:
        losses, correct = [], []
        for piece in pieces(outputs, between):
            logits, true = outputs[piece], y[piece]
            losses.append(F.cross_entropy(logits.float(), true, reduction="none"))
            correct.append(logits.argmax(dim=1) == true)
        scores = torch.cat(losses), torch.cat(correct)
        return torch.stack([each.mean(dtype=torch.float64) for each in scores])

    def describe(self, outputs: Tensor, y: Tensor, between: Callable[[], None]) -> Metrics:
        return classification_metrics(
            outputs,
            y,
            class_names=self._class_names,
            bins=self._bins,
            between_pieces=between,
        )

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

    def judge(self, outputs: Tensor, y: Tensor, between: Callable[[], None]) -> Tensor:
        return (outputs.float() - y).square().mean(dtype=torch.float64).unsqueeze(0)

    def describe(self, outputs: Tensor, y: Tensor, between: Callable[[], None]) -> Metrics:
        undo, loss = self._targets.undo, self.judge(outputs, y, between).item()
        return regression_metrics(undo(outputs.float()), undo(y), loss=loss)

    def gap(self, train: Metrics, test: Metrics) -> float:
        """Mean squared error of test minus that of train."""
        return (test.mse or 0.0) - (train.mse or 0.0)
