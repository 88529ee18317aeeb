"""What goes on inside a network, and what becomes of it when its input changes."""

from __future__ import annotations

from typing import Literal

from dropnorm.results._base import ResultModel

Corruption = Literal["none", "gaussian_noise", "gaussian_blur", "contrast", "shift"]


class VarianceShift(ResultModel):
    """Variances at the input of one batch norm over the training split, means over its channels (Li et al. 2018)."""

    layer: str
    """Name of the batch norm in the model."""
    train_variance: float
    """As in training: dropout on, batch norms ahead by batch."""
    eval_variance: float
    """As in evaluation: dropout off, batch norms ahead by their running statistics."""
    running_variance: float
    """The running variance, by which evaluation divides."""
    ratio: float
    """Variance in evaluation over that in training; 1: none, below 1: evaluation has less than the norm has learned."""
    dropout_ratio: float
    """Likewise with batch norms ahead by batch in both: what dropout does by itself, without running statistics."""
    direct_rates: tuple[float, ...] = ()
    """The different rates of dropout that reaches the norm without weights in between."""
    upstream_rates: tuple[float, ...] = ()
    """The different rates of dropout that reaches it over weights."""


class LayerReport(ResultModel):
    """One layer in one training step: dropout on, batch norm by batch."""

    layer: str
    """Name of the layer in the model."""
    mean: float
    """Mean of its outputs."""
    variance: float
    """Variance of its outputs."""
    dead_share: float | None = None
    """Share of units, or channels, that are zero for every sample of the batch, 0 to 1; absent but of activations."""
    gradient_norm: float | None = None
    """2-norm of the loss's gradient by all its weights; absent without weights that learn."""


class Robustness(ResultModel):
    """The test split under one corruption at one strength (Hendrycks & Dietterich 2019)."""

    corruption: Corruption
    """What was done to each image."""
    strength: int
    """How strongly, 1 to 5; 0: not at all."""
    loss: float
    """Cross-entropy in nats, or mean squared error of standardised targets, with running statistics."""
    accuracy: float | None = None
    """Share of samples classified correctly, 0 to 1; absent in regression."""
    adapted_loss: float | None = None
    """The loss where batch norms normalise by the test split's batches instead (Schneider et al. 2020, Nado et al.
    2020); absent where none keeps running statistics."""
    adapted_accuracy: float | None = None
    """The accuracy with them."""
