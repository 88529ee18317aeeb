"""Temperature scaling: one number on all logits that makes a network as sure as it is right (Guo et al. 2017)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dropnorm.results import Calibration, TemperatureScaling
from dropnorm_service.training.batching import pieces
from dropnorm_service.training.data import Split, SplitData
from dropnorm_service.training.inference import Inference
from dropnorm_service.training.metrics import Guesses

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

    between = inference.between_batches

    def told_of(part: Split) -> tuple[Tensor, Tensor]:
        return inference.outputs(part, data.outputs).cpu(), part.y.cpu()

    def calibration(told: tuple[Tensor, Tensor], temperature: float) -> Calibration:
        guesses = Guesses.of(*told, temperature=temperature, between_pieces=between)
        return guesses.calibration(bins)

    validation, test = told_of(data.validation), told_of(data.test)
    temperature = fit_temperature(*validation, between_pieces=between)
    return TemperatureScaling(
        temperature=temperature,
        validation_before=calibration(validation, 1.0),
        validation_after=calibration(validation, temperature),
        test_before=calibration(test, 1.0),
        test_after=calibration(test, temperature),
    )


def fit_temperature(
    logits: Tensor, labels: Tensor, between_pieces: Callable[[], None] = lambda: None
) -> float:
    """The T within `LIMITS` that minimises the mean of `-log softmax(logits / T)[label]`.

    In `b = 1 / T` that is convex, with the derivative `E[z] - z_label` and the second one `Var[z]` under
    softmax(b z), both means over samples: Newton's method, and bisection wherever it leaves the bracket.

    Args:
        logits: `[samples, classes]`, of any float type, on the CPU.
        labels: int64 `[samples]`.
        between_pieces: called several times in a second; what it raises ends the search.
    """
    low, high = 1.0 / LIMITS[1], 1.0 / LIMITS[0]
    inverse = 1.0
    for _ in range(_STEPS):
        slope, curvature = _derivatives(logits, labels, inverse, between_pieces)
        low, high = (low, inverse) if slope > 0.0 else (inverse, high)
        step = slope / curvature if curvature > 0.0 else math.inf
        following = inverse - step
        # A slope of 0 may be one that was too small for a number, and the optimum far away.
        if slope == 0.0 or not low <= following <= high:
            following = math.sqrt(low * high)
        if abs(following - inverse) <= _PRECISION * inverse:
            break
        inverse = following
    return 1.0 / inverse


def _derivatives(
    logits: Tensor, labels: Tensor, inverse: float, between_pieces: Callable[[], None]
) -> tuple[float, float]:
    """The first and the second one at an inverse temperature, in double precision."""
    slopes, curvatures = [], []
    for piece in pieces(logits, between_pieces):
        some = logits[piece].double()
        probabilities = (inverse * some).softmax(dim=1)
        mean = (probabilities * some).sum(dim=1, keepdim=True)
        slopes.append(mean - some.gather(1, labels[piece].unsqueeze(1)))
        curvatures.append((probabilities * (some - mean).square()).sum(dim=1))
    return torch.cat(slopes).mean().item(), torch.cat(curvatures).mean().item()
