"""Dropout (Srivastava et al. 2014) and batch normalisation (Ioffe & Szegedy 2015): how much, where, in which order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from dropnorm.spec._base import Bool, Float, Positive, Rate, SpecModel

_LEAST_KEPT = 1e-12
"""The complement of less rounds to a rate of 1."""


def _rate_or_keep_prob(schema: dict[str, Any]) -> None:
    """One of the two may stand in a file, and the other be absent or null."""
    rate = schema["properties"]["rate"]
    rate["type"] = ["number", "null"]
    number, null = {"type": "number"}, {"type": "null"}
    schema["anyOf"] = [
        {"properties": {"rate": number, "keep_prob": null}},
        {"properties": {"rate": null, "keep_prob": number}, "required": ["keep_prob"]},
    ]


class DropoutSettings(SpecModel):
    """How units are dropped and how what is kept is rescaled."""

    model_config = ConfigDict(json_schema_extra=_rate_or_keep_prob)

    rate: Rate = 0.5
    """Share of units dropped in training, from 0 (off) to below 1."""
    keep_prob: Annotated[Float, Field(ge=_LEAST_KEPT, le=1.0)] | None = None
    """The complement of `rate`, as much literature writes it, 1e-12 to 1. Accepted instead of `rate`, never beside
    it; a resolved spec carries `rate` alone."""
    rescaling: Literal["inverted", "at_inference", "l2_norm"] = "inverted"
    """What makes up for the dropped units: `inverted` divides the kept ones by `1 - rate` in training;
    `at_inference` leaves training alone and multiplies by `1 - rate` afterwards (Srivastava et al. 2014); `l2_norm`
    divides the kept activations of a sample by their 2-norm, in training and, all units kept, afterwards too."""

    @model_validator(mode="before")
    @classmethod
    def _rate_from_keep_prob(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or values.get("keep_prob") is None:
            return values
        if values.get("rate") is not None:
            raise ValueError("give either rate or keep_prob: each is one minus the other")
        keep = values["keep_prob"]
        rest = {key: value for key, value in values.items() if key not in ("rate", "keep_prob")}
        if isinstance(keep, bool) or not isinstance(keep, int | float):
            return rest | {"keep_prob": keep}  # the field's own limits say what is wrong with it
        if not _LEAST_KEPT <= keep <= 1:
            return rest | {"keep_prob": keep}
        return rest | {"rate": round(1.0 - keep, 12)}  # 1 - 0.8 is 0.2, not 0.19999999999999996


class BatchNormSettings(SpecModel):
    """How a batch is normalised: `y = gamma * (x - mean) / sqrt(var + eps) + beta`, per feature or channel."""

    momentum: Annotated[Float, Field(gt=0.0, le=1.0)] = 0.1
    """Weight of the newest batch in the running mean and variance, above 0 to 1."""
    eps: Positive = 1e-5
    """Added to the variance before the root, above 0."""
    affine: Bool = True
    """Learn gamma and beta."""
    track_running_stats: Bool = True
    """Keep running statistics for evaluation; without them evaluation normalises by its own batches."""


class Dropout(DropoutSettings):
    """Dropout of single units after each activation (`rate`), of the input, and of the output."""

    conv_rate: Rate | None = None
    """Share of units dropped after the activations of convolutions, from 0 (off) to below 1; absent: as `rate`."""
    input_rate: Rate = 0.0
    """Share of input features dropped, from 0 (off) to below 1."""
    output_rate: Rate = 0.0
    """Share of the outputs (logits) dropped, from 0 (off) to below 1; seldom wise, and Plan says so."""


class BatchNorm(BatchNormSettings):
    """Batch normalisation of the input, of the hidden layers, of the output."""

    input: Bool = False
    """Normalise the input features or channels."""
    hidden: Bool = True
    """Normalise around each activation."""
    output: Bool = False
    """Normalise the outputs (logits)."""
    position: Literal["before_activation", "after_activation"] = "before_activation"
    """Where in a hidden layer: before its activation (Ioffe & Szegedy 2015) or after it."""


class Regularization(SpecModel):
    """Dropout and batch norm, either, both or none, and their order where both act."""

    dropout: Dropout | None = None
    """Dropout; absent: none."""
    batch_norm: BatchNorm | None = None
    """Batch normalisation; absent: none."""
    order: Literal["norm_then_dropout", "dropout_then_norm"] = "norm_then_dropout"
    """Where both act in one place. `norm_then_dropout`: dropout comes last, after activation and batch norm.
    `dropout_then_norm`: dropout stands directly before the batch norm, which shifts the variance the norm sees
    between training and evaluation (Li et al. 2018)."""
