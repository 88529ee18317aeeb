"""Tokens to be restored from those around them (Devlin et al. 2018)."""

from __future__ import annotations

from math import exp

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dropnorm.results import Metrics
from dropnorm.spec import TrainingSpec
from dropnorm_service.training.batching import derived_seed, pieces
from dropnorm_service.training.data import Split, SplitData
from dropnorm_service.training.data.tokens import PAD, SPECIAL
from dropnorm_service.training.inference import Inference
from dropnorm_service.training.masking import Masked, chosen_counts, mask
from dropnorm_service.training.objectives.base import Forward
from dropnorm_service.training.pictures import Pictures


class MaskedLanguageModelling:
    """Cross-entropy of the chosen tokens, in nats per token.

    In training they are chosen anew for every batch. In evaluation the same ones are, whatever the epoch, the
    network or the seed of the weights, so that figures can be compared.
    """

    score_names = ("loss", "accuracy", "perplexity")

    def __init__(self, spec: TrainingSpec, data: SplitData) -> None:
        assert data.summary.sequences is not None  # the task is posed by tokens alone
        self._vocabulary = data.summary.sequences.vocabulary
        seed = spec.seed if spec.data.split_seed is None else spec.data.split_seed
        self._seed = derived_seed(seed, "masks")
        self._train = data.train
        self._smoothing = spec.regularization.label_smoothing or 0.0

    def training_loss(self, forward: Forward, x: Tensor, y: Tensor) -> Tensor:
        masked = mask(x, self._vocabulary, lambda shape: torch.rand(shape, device=x.device))
        logits = forward(masked.tokens, masked.chosen).float()
        losses = F.cross_entropy(
            logits.flatten(0, 1),
            masked.targets.flatten(),
            ignore_index=PAD,
            reduction="sum",
            label_smoothing=self._smoothing,
        )
        return losses / self.weight(x, y)

    def weight(self, x: Tensor, y: Tensor) -> Tensor:
        """Tokens that are chosen; where there are none the loss is 0, and so is its share."""
        return chosen_counts(x).sum().clamp(min=1)

    def scores(self, inference: Inference, part: Split) -> Tensor:
        return self._judge(inference, self._masked(inference, part))

    def _judge(self, inference: Inference, masked: Masked) -> Tensor:
        """The scores of a split that is masked already."""

        def measure(network: nn.Module, batch: Split) -> Tensor:
            chosen, targets = batch.y.chunk(2, dim=1)
            return _totals(network(batch.x, chosen), targets)

        losses, right, asked = inference.total(_exam(masked), measure)
        loss = losses / asked
        return torch.stack([loss, right / asked, loss.exp()])

    def metrics(self, inference: Inference, part: Split) -> Metrics:
        masked = self._masked(inference, part)
        loss, accuracy, perplexity = self._judge(inference, masked).tolist()
        guess_loss, guess_accuracy = self._unigram(masked.targets).tolist()
        return Metrics(
            samples=len(part),
            loss=loss,
            accuracy=accuracy,
            perplexity=perplexity,
            baseline_accuracy=guess_accuracy,
            baseline_perplexity=exp(guess_loss),
        )

    def gap(self, train: Metrics, test: Metrics) -> float:
        """Accuracy of train minus that of test."""
        return (train.accuracy or 0.0) - (test.accuracy or 0.0)

    def pictures(self, inference: Inference) -> Pictures:
        return {}

    def _masked(self, inference: Inference, part: Split) -> Masked:
        """A split with tokens hidden, always the same ones."""
        generator = torch.Generator().manual_seed(self._seed)

        def uniform(shape: torch.Size) -> Tensor:
            return torch.rand(shape, generator=generator).to(part.x.device)

        masked = [
            mask(part.x[piece], self._vocabulary, uniform)
            for piece in pieces(part.x, inference.between_batches)
        ]
        return Masked(*map(torch.cat, zip(*masked, strict=True)))

    def _unigram(self, targets: Tensor) -> Tensor:
        """Loss and accuracy of who knows nothing but how often each token occurs in the training split.

        Each counts once more than it occurs, so that none is impossible; the guess is the commonest.
        """
        ordinary = self._train.x[self._train.x >= len(SPECIAL)]
        counts = torch.bincount(ordinary, minlength=self._vocabulary).double()
        counts[len(SPECIAL) :] += 1.0
        asked = targets[targets != PAD]
        losses = -(counts / counts.sum()).log()[asked]
        return torch.stack([losses.mean(), (asked == counts.argmax()).double().mean()])


def _exam(masked: Masked) -> Split:
    return Split(masked.tokens, torch.cat([masked.chosen, masked.targets], dim=1))


def _totals(logits: Tensor, targets: Tensor) -> Tensor:
    """Sums of loss and of right answers over the chosen tokens, and their number: float64 `[3]`.

    Args:
        logits: `[batch, count, vocabulary]`.
        targets: int64 `[batch, count]`, `PAD` where none was chosen.
    """
    logits, targets = logits.float().flatten(0, 1), targets.flatten()
    asked = targets != PAD
    losses = F.cross_entropy(logits, targets, ignore_index=PAD, reduction="none")
    right = (logits.argmax(dim=1) == targets) & asked
    sums = [each.sum(dtype=torch.float64) for each in (losses, right, asked)]
    return torch.stack(sums)
