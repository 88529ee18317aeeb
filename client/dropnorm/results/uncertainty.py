"""How sure a network is, and how right it is to be so."""

from __future__ import annotations

from dropnorm.results._base import ResultModel


class MCDropout(ResultModel):
    """The test split predicted many times with dropout on and batch norm in eval mode (Gal & Ghahramani 2016).

    The prediction is the mean over passes: of class probabilities, or of values. Absent: not defined for the task.
    """

    passes: int
    """Passes over the split."""
    accuracy: float | None = None
    """Share of samples whose likeliest class is right, 0 to 1."""
    nll: float | None = None
    """Mean negative log-likelihood of the true class in nats."""
    brier: float | None = None
    """Brier score, summed over classes, 0 to 2."""
    ece: float | None = None
    """Expected calibration error over equal-width confidence bins, 0 to 1."""
    predictive_entropy: float | None = None
    """Mean entropy of the mean distribution in nats: the whole uncertainty of a prediction."""
    mutual_information: float | None = None
    """Mean mutual information of class and weights in nats: the part of it that the passes disagree about (Houlsby et
    al. 2011)."""
    mse: float | None = None
    """Mean squared error of the mean in the target's unit squared."""
    mae: float | None = None
    """Mean absolute error of the mean in the target's unit."""
    standard_deviation: float | None = None
    """Standard deviation over passes in the target's unit, its mean over samples and targets."""
    gaussian_nll: float | None = None
    """Mean negative log-likelihood in nats of a sample's targets under normal distributions of that mean, and of the
    variance over passes plus a noise: of each target the mean squared error on validation."""
    deterministic_gaussian_nll: float | None = None
    """Likewise of one pass in eval mode, with the noise alone."""


class Calibration(ResultModel):
    """How good predicted probabilities are."""

    nll: float
    """Mean negative log-likelihood of the true class in nats."""
    brier: float
    """Brier score, summed over classes, 0 to 2 (Brier 1950)."""
    ece: float
    """Expected calibration error over equal-width confidence bins, 0 to 1 (Guo et al. 2017)."""


class TemperatureScaling(ResultModel):
    """All logits divided by one temperature, fitted to the validation split (Guo et al. 2017); no class changes."""

    temperature: float
    """The temperature with the least NLL on validation, 0.01 to 100; above 1 the network was too sure."""
    validation_before: Calibration
    """The validation split as it was."""
    validation_after: Calibration
    """The validation split with its logits divided."""
    test_before: Calibration
    """The test split as it was."""
    test_after: Calibration
    """The test split with its logits divided."""
