"""Temperature scaling: one number on all logits that makes a network as sure as it is right (Guo et al. 2017)."""

from __future__ import annotations

import math

from torch import Tensor

from dropnorm.results import Calibration, TemperatureScaling
from dropnorm_service.training.data import Split, SplitData
from dropnorm_service.training.inference import Inference
from dropnorm_service.training.metrics import (
    brier_score,
    expected_calibration_error,
    negative_log_likelihood,
)

LIMITS = (0.01, 100.0)
"""Temperatures between which the best is sought: where validation is classified without an error there is none."""

_STEPS = 200
_PRECISION = 1e-12


def temperature_scaling(inference: Inference, data: SplitData, *, bins: int) -> TemperatureScaling:
    """The temperature that is best on the validation split, and what it does to the test split.

    Args:
        inference: runs the network.
        data: its data.
        bins: confidence bins of the calibration error.
    """

    def logits_of(part: Split) -> Tensor:
        return inference.outputs(part, data.outputs).cpu().double()

    logits, labels = logits_of(data.validation), data.validation.y.cpu()
    test, truth = logits_of(data.test), data.test.y.cpu()
    temperature = fit_temperature(logits, labels)
    return TemperatureScaling(
        temperature=temperature,
        validation_before=calibration(logits, labels, bins),
        validation_after=calibration(logits / temperature, labels, bins),
        test_before=calibration(test, truth, bins),
        test_after=calibration(test / temperature, truth, bins),
    )


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The T within `LIMITS` that minimises the mean of `-log softmax(logits / T)[label]`.

    In `b = 1 / T` that is convex, with the derivative `E[z] - z_label` and the second one `Var[z]` under
    softmax(b z), both means over samples: Newton's method, and bisection wherever it leaves the bracket.

    Args:
        logits: float64 `[samples, classes]`.
        labels: int64 `[samples]`.
    """
    low, high = 1.0 / LIMITS[1], 1.0 / LIMITS[0]
    true = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
    inverse = 1.0
    for _ in range(_STEPS):
        probabilities = (inverse * logits).softmax(dim=1)
        mean = (probabilities * logits).sum(dim=1)
        slope = (mean - true).mean().item()
        deviations = (logits - mean.unsqueeze(1)).square()
        curvature = (probabilities * deviations).sum(dim=1).mean().item()
        low, high = (low, inverse) if slope > 0.0 else (inverse, high)
        step = slope / curvature if curvature > 0.0 else math.inf
        following = inverse - step
        if not low < following < high:
            following = math.sqrt(low * high)
        if abs(following - inverse) <= _PRECISION * inverse:
            break
        inverse = following
    return 1.0 / inverse


def calibration(logits: Tensor, labels: Tensor, bins: int) -> Calibration:
    """How good the probabilities of logits, float64 `[samples, classes]`, are."""
    log_probabilities = logits.log_softmax(dim=1)
    probabilities = log_probabilities.exp()
    confidence, predicted = probabilities.max(dim=1)
    return Calibration(
        nll=negative_log_likelihood(log_probabilities, labels),
        brier=brier_score(probabilities, labels),
        ece=expected_calibration_error(confidence, predicted == labels, bins),
    )
