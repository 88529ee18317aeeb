"""What a model's outputs on a split are worth. Pure functions, in double precision on the CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dropnorm.results import ClassMetrics, Metrics


def classification_metrics(
    logits: Tensor, labels: Tensor, *, class_names: Sequence[str], bins: int
) -> Metrics:
    """Metrics of a classifier.

    Args:
        logits: `[samples, classes]`, any float type and device.
        labels: true classes, int64 `[samples]`.
        class_names: a name per class.
        bins: confidence bins of the calibration error.
    """
    log_probabilities = logits.detach().cpu().double().log_softmax(dim=1)
    probabilities, labels = log_probabilities.exp(), labels.cpu()
    confidence, predicted = probabilities.max(dim=1)
    correct = predicted == labels
    nll = negative_log_likelihood(log_probabilities, labels)
    classes = class_metrics(confusion_matrix(labels, predicted, len(class_names)), class_names)
    return Metrics(
        samples=len(labels),
        loss=nll,
        accuracy=correct.double().mean().item(),
        nll=nll,
        brier=brier_score(probabilities, labels),
        ece=expected_calibration_error(confidence, correct, bins),
        macro_f1=sum(each.f1 for each in classes) / len(classes),
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


def class_metrics(confusion: Tensor, class_names: Sequence[str]) -> tuple[ClassMetrics, ...]:
    """Precision, recall and F1 of each class; 0 where there is nothing to divide by."""
    rows: list[list[int]] = confusion.tolist()
    columns = [sum(column) for column in zip(*rows, strict=True)]
    return tuple(
        ClassMetrics(
            name=name,
            precision=_share(row[index], columns[index]),
            recall=_share(row[index], sum(row)),
            f1=_share(2 * row[index], columns[index] + sum(row)),
            support=sum(row),
            predicted=tuple(row),
        )
        for index, (name, row) in enumerate(zip(class_names, rows, strict=True))
    )


def negative_log_likelihood(log_probabilities: Tensor, labels: Tensor) -> float:
    """Mean of minus the log probability of the true classes, `[samples]`, under `[samples, classes]`, in nats."""
    return 0.0 - log_probabilities.gather(1, labels.unsqueeze(1)).mean().item()


def brier_score(probabilities: Tensor, labels: Tensor) -> float:
    """Mean squared distance between the predicted distribution and the truth (Brier 1950), 0 to 2."""
    truth = torch.zeros_like(probabilities).scatter_(1, labels.unsqueeze(1), 1.0)
    return (probabilities - truth).square().sum(dim=1).mean().item()


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
