"""What is measured of a training besides its loss."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dropnorm.spec._base import Bool, Epochs, Int, SpecModel


class EvaluationSettings(SpecModel):
    """What is measured besides the loss."""

    selection: Literal["validation_loss", "validation_accuracy"] = "validation_loss"
    """Which metric names the best epoch, whose weights are kept and tested; accuracy only in classification. Early
    stopping watches the same metric."""
    train_metrics: Bool = True
    """Evaluate the training split in eval mode after each epoch, which the generalisation gap of each epoch needs; at
    the best epoch it is measured in any case."""
    calibration_bins: Annotated[Int, Field(ge=2, le=1000)] = 15
    """Equal-width confidence bins of the expected calibration error, 2 to 1000 (Guo et al. 2017)."""
    recalibrate_batch_norm: Literal["dropout_off", "dropout_on"] | None = None
    """Compute running means and variances anew before the evaluation: at the best weights, over the whole training
    split in batches as in training, with dropout off or on (Wu & Johnson 2021); what it changes is reported. Frozen
    ones stay. Absent: not at all."""
    mc_dropout_passes: Annotated[Int, Field(ge=2, le=10_000)] | None = None
    """Predict the test split so often with dropout on, at the rates of the best epoch, and batch norm in eval mode, 2
    to 10,000, and report what the mean prediction is worth and how far the passes differ (Gal & Ghahramani 2016); in
    classification and regression. Absent: not at all."""
    temperature_scaling: Bool = False
    """Fit a temperature for the logits to the validation split, and report the calibration of the test split before
    and after (Guo et al. 2017); only in classification. The model itself stays as it is."""
    variance_shift: Bool = False
    """Measure the variance at the input of each batch norm over the training split, as in training, dropout on, and as
    in evaluation, dropout off (Li et al. 2018); in classification and regression."""
    robustness: Bool = False
    """Measure the test split under noise, blur, contrast and shift at five strengths each, by running statistics and,
    where there is batch norm, by those of the test split's own batches (Hendrycks & Dietterich 2019; Nado et al.
    2020); only in classification and regression of images."""
    layer_report_epochs: Epochs | None = None
    """After every so many epochs report mean and variance of each layer's outputs, its share of dead units and the norm
    of its gradient, over one batch of the training split as in training but without augmentation, always the same; 1
    to 100,000. Of at most 1,000 layers; layers times reports are at most 50,000. Absent: never."""
    beam_width: Annotated[Int, Field(ge=2, le=1000)] | None = None
    """Tell the targets of the test split by a beam search that keeps so many beginnings, 2 to 1000, too, and report how
    many it tells without a mistake; only in sequence to sequence. Absent: by greedy decoding alone."""
