"""Metrics against scikit-learn and against figures worked out by hand."""

import pytest
import sklearn.metrics as reference
import torch
from torch.nn import functional as F

from dropnorm.results import Metrics
from dropnorm_service.training.metrics import (
    class_metrics,
    classification_metrics,
    expected_calibration_error,
    r2_score,
    regression_metrics,
)

CLASSES = 4
NAMES = ("a", "b", "c", "d")


@pytest.fixture
def logits() -> torch.Tensor:
    torch.manual_seed(1)
    return 3.0 * torch.randn(300, CLASSES)


@pytest.fixture
def labels() -> torch.Tensor:
    torch.manual_seed(2)
    return torch.randint(0, CLASSES - 1, (300,))  # the last class has no samples


def measured(logits: torch.Tensor, labels: torch.Tensor) -> Metrics:
    return classification_metrics(logits, labels, class_names=NAMES, bins=10)


def test_accuracy_and_class_metrics_are_scikit_learns(logits, labels):
    found, predicted = measured(logits, labels), logits.argmax(dim=1)
    precision, recall, f1, support = reference.precision_recall_fscore_support(
        labels, predicted, labels=range(CLASSES), zero_division=0.0
    )
    assert found.samples == 300
    assert found.accuracy == pytest.approx(reference.accuracy_score(labels, predicted))
    assert [each.name for each in found.classes] == list(NAMES)
    assert [each.precision for each in found.classes] == pytest.approx(precision)
    assert [each.recall for each in found.classes] == pytest.approx(recall)
    assert [each.f1 for each in found.classes] == pytest.approx(f1)
    assert [each.support for each in found.classes] == support.tolist()
    assert found.macro_f1 == pytest.approx(f1.mean())
    matrix = reference.confusion_matrix(labels, predicted, labels=range(CLASSES))
    assert [list(row) for row in found.confusion_matrix] == matrix.tolist()


@pytest.mark.parametrize(
    ("classes", "listed", "rows"),
    [(100, 100, 100), (101, 101, 0), (1000, 1000, 0), (1001, 0, 0), (200_000, 0, 0)],
)
def test_many_classes_have_no_matrix_and_very_many_no_list(classes: int, listed: int, rows: int):
    labels, predicted = torch.arange(50), torch.arange(50) % 7
    macro_f1, found = class_metrics(labels, predicted, [str(n) for n in range(classes)])
    f1 = reference.f1_score(
        labels, predicted, average=None, labels=range(classes), zero_division=0.0
    )
    assert macro_f1 == pytest.approx(f1.mean())
    assert [each.f1 for each in found] == pytest.approx(f1[:listed])
    metrics = measured(torch.eye(4), torch.arange(4)).model_copy(update={"classes": found})
    assert len(metrics.confusion_matrix) == rows


def test_losses_are_scikit_learns(logits, labels):
    found, probabilities = measured(logits, labels), logits.double().softmax(dim=1)
    nll = reference.log_loss(labels, probabilities, labels=range(CLASSES))
    assert found.loss == found.nll == pytest.approx(nll, rel=1e-9)
    truth = torch.nn.functional.one_hot(labels, CLASSES).double()
    by_class = [
        reference.brier_score_loss(truth[:, k], probabilities[:, k])
        for k in range(CLASSES)
        if truth[:, k].any()
    ]
    absent = (probabilities[:, CLASSES - 1] ** 2).mean().item()
    assert found.brier == pytest.approx(sum(by_class) + absent)


def test_of_many_samples_and_classes_it_asks_between_pieces_and_has_the_same_numbers():
    torch.manual_seed(0)
    logits, labels = torch.randn(5000, 500), torch.randint(500, (5000,))
    asked = []
    found = classification_metrics(
        logits,
        labels,
        class_names=list(map(str, range(500))),
        bins=10,
        between_pieces=lambda: asked.append(True),
    )
    assert len(asked) == 3
    log_probabilities = logits.double().log_softmax(dim=1)
    truth = F.one_hot(labels, 500).double()
    confidence, predicted = log_probabilities.exp().max(dim=1)
    assert found.nll == pytest.approx(F.nll_loss(log_probabilities, labels).item(), rel=1e-14)
    assert found.brier == (log_probabilities.exp() - truth).square().sum(dim=1).mean().item()
    assert found.ece == expected_calibration_error(confidence, predicted == labels, 10)
    assert found.accuracy == (predicted == labels).double().mean().item()


def test_a_class_that_is_never_predicted_has_precision_0():
    found = measured(torch.tensor([[9.0, 0, 0, 0]] * 2), torch.tensor([0, 1]))
    assert [each.precision for each in found.classes] == [0.5, 0.0, 0.0, 0.0]
    assert [each.recall for each in found.classes] == [1.0, 0.0, 0.0, 0.0]


def test_calibration_error_by_hand():
    """Five bins. (0.2, 0.4]: 0.4 and 0.3, one right; (0.8, 1]: 0.9, 0.9 and 1, two right."""
    confidence = torch.tensor([0.4, 0.3, 0.9, 0.9, 1.0])
    correct = torch.tensor([True, False, True, False, True])
    low = abs(1 / 2 - 0.35) * 2 / 5
    high = abs(2 / 3 - 2.8 / 3) * 3 / 5
    assert expected_calibration_error(confidence, correct, 5) == pytest.approx(low + high)


@pytest.mark.parametrize(("confidence", "right", "error"), [(1.0, True, 0.0), (1.0, False, 1.0)])
def test_calibration_error_at_its_limits(confidence, right, error):
    found = expected_calibration_error(torch.full((7,), confidence), torch.full((7,), right), 15)
    assert found == error


def test_huge_logits_stay_finite():
    found = measured(torch.tensor([[1e4, -1e4, 0.0, 0.0]]), torch.tensor([1]))
    assert found.nll == 2e4
    assert found.brier == 2.0


def test_regression_is_scikit_learns():
    torch.manual_seed(3)
    targets = torch.randn(100, 2) * torch.tensor([1.0, 50.0])
    outputs = targets + torch.randn(100, 2)
    found = regression_metrics(outputs, targets, loss=0.5)
    assert found.loss == 0.5
    assert found.mse == pytest.approx(reference.mean_squared_error(targets, outputs), rel=1e-6)
    assert found.mae == pytest.approx(reference.mean_absolute_error(targets, outputs), rel=1e-6)
    assert found.r2 == pytest.approx(reference.r2_score(targets, outputs), rel=1e-6)
    assert found.accuracy is None
    assert found.classes == ()


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_r2_of_a_target_that_never_changes(shift):
    targets = torch.ones(5, 1, dtype=torch.float64)
    assert r2_score(targets + shift, targets) == (1.0 if shift == 0.0 else 0.0)
    assert r2_score(targets + shift, targets) == reference.r2_score(targets, targets + shift)
