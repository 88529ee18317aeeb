"""Monte Carlo dropout: dropout at prediction time as an approximate posterior (Gal & Ghahramani 2016)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dropnorm.results import MCDropout
from dropnorm_service.training.batching import derived_seed, pieces
from dropnorm_service.training.data import Split, SplitData, Standardization
from dropnorm_service.training.evaluation.modes import dropping, seeded
from dropnorm_service.training.inference import Inference
from dropnorm_service.training.metrics import classification_metrics, regression_metrics
from dropnorm_service.training.passes import PassMoments, entropy

_LEAST_NOISE = 1e-12
"""Variance of standardised targets that counts as none."""


def classification(
    inference: Inference, data: SplitData, *, passes: int, seed: int, bins: int
) -> MCDropout:
    """The mean predictive distribution on the test split, `p = mean over passes of softmax(logits)`.

    Its entropy is the total uncertainty of a sample; the mutual information of prediction and weights,
    entropy minus the mean entropy of the passes, is what the passes disagree about (Houlsby et al. 2011).

    Args:
        inference: runs the network.
        data: its data.
        passes: passes with dropout on.
        seed: the spec's, from which the masks' are derived.
        bins: confidence bins of the calibration error.
    """
    test = data.test
    between = inference.between_batches
    drawn = sampled(inference, test, data.outputs, passes=passes, seed=seed)
    predicted = predict_classes(drawn, between)
    metrics = classification_metrics(
        predicted.log_probabilities,
        test.y,
        class_names=data.summary.class_names,
        bins=bins,
        between_pieces=between,
    )
    return MCDropout(
        passes=passes,
        accuracy=metrics.accuracy,
        nll=metrics.nll,
        brier=metrics.brier,
        ece=metrics.ece,
        predictive_entropy=predicted.entropy.mean().item(),
        mutual_information=predicted.mutual_information.mean().item(),
    )


def regression(inference: Inference, data: SplitData, *, passes: int, seed: int) -> MCDropout:
    """The predictive mean and deviation on the test split, in the targets' own unit.

    The likelihood is normal, with the variance over passes plus a noise: of each target the mean squared
    error of the same predictions on the validation split, in the place of the paper's inverse precision.

    Args:
        inference: runs the network.
        data: its data.
        passes: passes with dropout on.
        seed: the spec's, from which the masks' are derived.
    """
    assert data.targets is not None  # a regression's data has its targets standardised
    width, scale = data.outputs, data.targets
    parts = (data.validation, data.test)
    certain = [_own_unit(inference.outputs(part, width), scale) for part in parts]
    drawn = [
        predict_values(
            _own_unit(outputs, scale)
            for outputs in sampled(inference, part, width, passes=passes, seed=seed)
        )
        for part in parts
    ]
    validation, test = (_own_unit(part.y, scale) for part in parts)
    mean, variance = drawn[1]
    least = _LEAST_NOISE * scale.std.cpu().double().square()
    noise = (drawn[0][0] - validation).square().mean(dim=0).maximum(least)
    plain = (certain[0] - validation).square().mean(dim=0).maximum(least)
    metrics = regression_metrics(mean, test, loss=math.nan)
    return MCDropout(
        passes=passes,
        mse=metrics.mse,
        mae=metrics.mae,
        standard_deviation=variance.sqrt().mean().item(),
        gaussian_nll=gaussian_nll(mean, variance + noise, test),
        deterministic_gaussian_nll=gaussian_nll(certain[1], plain.expand_as(mean), test),
    )


def sampled(
    inference: Inference, part: Split, width: int, *, passes: int, seed: int
) -> Iterator[Tensor]:
    """What the network says of a split in each pass, dropout on and all else in eval mode.

    Every batch has its masks from a seed of its own, so that they do not depend on what ran before.

    Yields:
        float32 `[samples, width]`, on the device.
    """
    for number in range(passes):
        yield _one_pass(inference, part, width, number, seed)


@torch.inference_mode()
def _one_pass(inference: Inference, part: Split, width: int, number: int, seed: int) -> Tensor:
    device = part.x.device
    result = torch.empty(len(part), width, device=device)
    for index, batch in enumerate(inference.slices(part)):
        drawn = derived_seed(seed, "mc_dropout", number, index)
        with inference.evaluating() as network, dropping(network), seeded(drawn, device):
            result[batch] = network(part.x[batch])
        inference.between_batches()
    return result


@dataclass(frozen=True)
class PredictedClasses:
    """A mean predictive distribution; float64, on the device.

    Attributes:
        log_probabilities: `[samples, classes]`.
        entropy: of each sample in nats, `[samples]`.
        mutual_information: of each sample's class and the weights in nats, `[samples]`; 0 or more.
    """

    log_probabilities: Tensor
    entropy: Tensor
    mutual_information: Tensor


def predict_classes(
    passes: Iterator[Tensor], between_pieces: Callable[[], None] = lambda: None
) -> PredictedClasses:
    """The mean of the distributions that each pass's logits stand for.

    Args:
        passes: `[samples, classes]` each, at least one.
        between_pieces: called several times in a second; what it raises ends it.
    """
    for count, logits in enumerate(passes, start=1):
        if count == 1:
            total = torch.full_like(logits, -math.inf, dtype=torch.float64)
            entropies = total.new_zeros(len(total))
        for piece in pieces(total, between_pieces):
            here = logits[piece].double().log_softmax(dim=1)
            # The sum is taken of logarithms, so that a probability too small for a number still has a likelihood.
            total[piece] = torch.logaddexp(total[piece], here)
            entropies[piece] += entropy(here.exp())
    whole = torch.empty_like(entropies)
    for piece in pieces(total, between_pieces):
        total[piece] -= math.log(count)
        whole[piece] = entropy(total[piece].exp())
    # By Jensen's inequality it is never negative, but for rounding.
    return PredictedClasses(total, whole, (whole - entropies / count).clamp(min=0.0))


def predict_values(passes: Iterator[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and variance over passes of `[samples, targets]`, at least one (Welford 1962); float64."""
    moments = PassMoments()
    for values in passes:
        moments.add(values.double())
    return moments.mean, moments.variance(correction=0)


def gaussian_nll(mean: Tensor, variance: Tensor, y: Tensor) -> float:
    """Mean over samples of `-log N(y; mean, variance)` in nats, summed over targets: `[samples, targets]` each."""
    losses = (y - mean).square() / variance + variance.log() + math.log(2.0 * math.pi)
    return 0.5 * losses.sum(dim=1).mean().item()


def _own_unit(values: Tensor, scale: Standardization) -> Tensor:
    """Standardised targets in their own unit, float64, on the CPU."""
    wide = values.cpu().double()
    return wide * scale.std.cpu().double() + scale.mean.cpu().double()
