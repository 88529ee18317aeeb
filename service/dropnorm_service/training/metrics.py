"""What a model's outputs on a split are worth. Pure functions, in double precision on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dropnorm.results import Calibration, ClassMetrics, Metrics
from dropnorm_service.training.batching import pieces

# Whoever asks for a job gets its evaluation, five times the metrics of a split in it, and a confusion matrix of 1,000
# classes takes a fifth of a second to be read each time.
_MOST_CLASSES = 1_000
_MOST_ROWS = 100


@dataclass(frozen=True)
class Guesses:
    """What a classifier says of each sample, `[samples]`.

    Attributes:
        labels: the true classes, int64.
        predicted: the most probable ones, int64.
        confidence: their probabilities, float64.
        log_likelihood: the log probabilities of the true classes, float64.
        distance: squared distance between the distribution and the truth, float64.
    """

    labels: Tensor
    predicted: Tensor
    confidence: Tensor
    log_likelihood: Tensor
    distance: Tensor

    @classmethod
    def of(
        cls,
        logits: Tensor,
        labels: Tensor,
        *,
        temperature: float = 1.0,
        between_pieces: Callable[[], None],
    ) -> Guesses:
        """Of logits `[samples, classes]` over a temperature; see `classification_metrics`."""
        labels = labels.cpu()
        rows = [
            _guessed(logits[piece].detach().cpu().double() / temperature, labels[piece])
            for piece in pieces(logits, between_pieces)
        ]
        return cls(labels, *map(torch.cat, zip(*rows, strict=True)))

    def calibration(self, bins: int) -> Calibration:
        """How good the probabilities are, with so many bins of confidence."""
        correct = self.predicted == self.labels
        return Calibration(
            nll=0.0 - self.log_likelihood.mean().item(),
            brier=self.distance.mean().item(),
            ece=expected_calibration_error(self.confidence, correct, bins),
        )


def _guessed(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `Guesses` has besides labels; the distance is that of Brier (1950), 0 to 2."""
    log_probabilities, true = logits.log_softmax(dim=1), labels.unsqueeze(1)
    probabilities = log_probabilities.exp()
    confidence, predicted = probabilities.max(dim=1)
    log_likelihood = log_probabilities.gather(1, true).squeeze(1)
    truth = torch.zeros_like(probabilities).scatter_(1, true, 1.0)
    distance = (probabilities - truth).square().sum(dim=1)
    return predicted, confidence, log_likelihood, distance


def classification_metrics(
    logits: Tensor,
    labels: Tensor,
    *,
    class_names: Sequence[str],
    bins: int,
    between_pieces: Callable[[], None] = lambda: None,
) -> Metrics:
    """Metrics of a classifier.

    Args:
        logits: `[samples, classes]`, any float type and device.
        labels: true classes, int64 `[samples]`.
        class_names: a name per class.
        bins: confidence bins of the calibration error.
        between_pieces: called now and then, since a million samples of a thousand classes take a minute; what it
            raises ends it.
    """
    guesses = Guesses.of(logits, labels, between_pieces=between_pieces)
    calibration = guesses.calibration(bins)
    macro_f1, classes = class_metrics(guesses.labels, guesses.predicted, class_names)
    return Metrics(
        samples=len(labels),
        loss=calibration.nll,
        accuracy=(guesses.predicted == guesses.labels).double().mean().item(),
        nll=calibration.nll,
        brier=calibration.brier,
        ece=calibration.ece,
        macro_f1=macro_f1,
        classes=classes,
    )


def regression_metrics(outputs: Tensor, targets: Tensor, *, loss: float) -> Metrics:
    """Metrics of a regression in the targets' own unit.

    Args:
        outputs: `[samples, targets]` in the targets' own unit, any float type and device.
        targets: likewise.
        loss: the training objective on this split.
    """
    outputs, targets = outputs.detach().cpu().double(), targets.cpu().double()
    error = outputs - targets
    return Metrics(
        samples=len(targets),
        loss=loss,
        mse=error.square().mean().item(),
        mae=error.abs().mean().item(),
        r2=r2_score(outputs, targets),
    )


def confusion_matrix(labels: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """Counts, int64 `[true class, predicted class]`."""
    return torch.bincount(labels * classes + predicted, minlength=classes**2).view(classes, classes)


def class_metrics(
    labels: Tensor, predicted: Tensor, class_names: Sequence[str]
) -> tuple[float, tuple[ClassMetrics, ...]]:
    """Macro F1, and precision, recall and F1 of each class; 0 where there is nothing to divide by.

    Args:
        labels: true classes, int64 `[samples]`.
        predicted: likewise.
        class_names: a name per class. Of more than 1,000 classes none is listed, and of more than 100 there are no
            rows of the confusion matrix.
    """
    count = len(class_names)
    right = _counts(labels[labels == predicted], count)
    told, support = _counts(predicted, count), _counts(labels, count)
    f1 = [
        _share(2 * hits, all_told + there)
        for hits, all_told, there in zip(right, told, support, strict=True)
    ]
    macro_f1 = sum(f1) / count
    if count > _MOST_CLASSES:
        return macro_f1, ()
    rows: list[list[int]] = [[]] * count
    if count <= _MOST_ROWS:
        rows = confusion_matrix(labels, predicted, count).tolist()
    return macro_f1, tuple(
        ClassMetrics(
            name=name,
            precision=_share(right[index], told[index]),
            recall=_share(right[index], support[index]),
            f1=f1[index],
            support=support[index],
            predicted=tuple(rows[index]),
        )
        for index, name in enumerate(class_names)
    )


def _counts(classes: Tensor, count: int) -> list[int]:
    """How often each class is there."""
    counts: list[int] = torch.bincount(classes, minlength=count).tolist()
    return counts


def expected_calibration_error(confidence: Tensor, correct: Tensor, bins: int) -> float:
    """`sum over bins of |accuracy - mean confidence| * samples in the bin / samples` (Guo et al. 2017).

    Args:
        confidence: probability of the predicted class, `[samples]`.
        correct: whether the prediction was right, bool `[samples]`.
        bins: equal-width bins `((m - 1) / bins, m / bins]`.
    """
    members = (confidence * bins).ceil().long().sub_(1).clamp_(0, bins - 1)
    surplus = torch.zeros(bins, dtype=torch.float64)
    surplus.index_add_(0, members, correct.double() - confidence.double())
    return surplus.abs().sum().item() / len(confidence)


def r2_score(outputs: Tensor, targets: Tensor) -> float:
    """Coefficient of determination, the mean over targets, at most 1.

    Of a target that never changes it is 1 when it is met exactly and 0 otherwise.
    """
    unexplained = (outputs - targets).square().sum(dim=0)
    total = (targets - targets.mean(dim=0)).square().sum(dim=0)
    constant = (unexplained == 0.0).double()
    return torch.where(total > 0.0, 1.0 - unexplained / total, constant).mean().item()


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
