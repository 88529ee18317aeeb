"""One sequence of tokens to be told from another (Cho et al. 2014; Sutskever et al. 2014)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dropnorm.results import Metrics
from dropnorm.spec import TrainingSpec
from dropnorm_service.training.data import Split, SplitData
from dropnorm_service.training.data.tokens import PAD
from dropnorm_service.training.inference import Inference
from dropnorm_service.training.objectives.base import Forward
from dropnorm_service.training.pictures import Pictures


class SequenceToSequence:
    """Cross-entropy of each token of the target given those before it, in nats per token; padding does not count.

    A sequence is told correctly if every token is the likeliest after the true ones before it, which is so exactly if
    greedy decoding tells the whole target, its end included.
    """

    score_names = ("loss", "accuracy", "perplexity", "sequence_accuracy")

    def __init__(self, spec: TrainingSpec, data: SplitData) -> None:
        self._smoothing = spec.regularization.label_smoothing or 0.0

    def training_loss(self, forward: Forward, x: Tensor, y: Tensor) -> Tensor:
        logits, targets = forward(x, y[:, :-1]).float(), y[:, 1:]
        losses = F.cross_entropy(
            logits.flatten(0, 1),
            targets.flatten(),
            ignore_index=PAD,
            reduction="sum",
            label_smoothing=self._smoothing,
        )
        return losses / self.weight(x, y)

    def weight(self, x: Tensor, y: Tensor) -> Tensor:
        """Tokens that are told."""
        return (y[:, 1:] != PAD).sum()

    def scores(self, inference: Inference, part: Split) -> Tensor:
        loss, right, tokens, whole = inference.total(part, _totals)
        loss = loss / tokens
        return torch.stack([loss, right / tokens, loss.exp(), whole / len(part)])

    def metrics(self, inference: Inference, part: Split) -> Metrics:
        loss, accuracy, perplexity, whole = self.scores(inference, part).tolist()
        return Metrics(
            samples=len(part),
            loss=loss,
            accuracy=accuracy,
            perplexity=perplexity,
            sequence_accuracy=whole,
        )

    def gap(self, train: Metrics, test: Metrics) -> float:
        """Accuracy of train minus that of test."""
        return (train.accuracy or 0.0) - (test.accuracy or 0.0)

    def pictures(self, inference: Inference) -> Pictures:
        return {}


def _totals(network: nn.Module, batch: Split) -> Tensor:
    """Sums of loss and of right tokens, their number, and the sequences told correctly: float64 `[4]`."""
    logits, targets = network(batch.x, batch.y[:, :-1]).float(), batch.y[:, 1:]
    asked = targets != PAD
    losses = F.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=PAD, reduction="none"
    )
    right = logits.argmax(dim=2) == targets
    whole = (right | asked.logical_not()).all(dim=1)
    sums = (losses, right & asked, asked, whole)
    return torch.stack([each.sum(dtype=torch.float64) for each in sums])
