"""Dropout (Srivastava et al. 2014) and batch normalisation (Ioffe & Szegedy 2015): how much, where, in which order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from dropnorm.spec._base import Bool, Float, Int, Positive, Problem, Rate, SpecModel

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
    method: Literal["unit", "spatial", "gaussian", "alpha"] = "unit"
    """What is dropped: `unit`, single values (Srivastava et al. 2014); `spatial`, whole channels of an image (Tompson
    et al. 2015), of a feature vector single values; `gaussian`, nothing, but values are multiplied by noise of mean 1
    and variance `rate / (1 - rate)` (Srivastava et al. 2014, section 10); `alpha`, values go to the negative
    saturation of SELU (Klambauer et al. 2017)."""
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

    def _rules(self) -> Iterator[Problem]:
        if self.method in ("gaussian", "alpha") and self.rescaling != "inverted":
            yield Problem(
                "rescaling", f"{self.method} dropout keeps the mean by itself; leave rescaling out"
            )


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


class SampleNormSettings(SpecModel):
    """How a sample is normalised by itself, without a batch, and so in evaluation as in training."""

    eps: Positive = 1e-5
    """Added to the variance, or to the mean square, before the root, above 0."""
    affine: Bool = True
    """Learn gamma and, where the mean is taken away, beta: one per feature or channel."""


class GroupNormSettings(SampleNormSettings):
    """How groups of a sample's channels are normalised, each by itself (Wu & He 2018)."""

    groups: Annotated[Int, Field(ge=1, le=2**20)] = 32
    """Groups at most, 1 to 1,048,576: it is the largest number up to this that divides the channels and leaves each
    group two values."""


class Dropout(DropoutSettings):
    """Dropout after each activation (`rate`), of the input, of the output, and of residual branches."""

    conv_rate: Rate | None = None
    """Share of units dropped after the activations of convolutions, from 0 (off) to below 1; absent: as `rate`."""
    input_rate: Rate = 0.0
    """Share of input features dropped, from 0 (off) to below 1."""
    output_rate: Rate = 0.0
    """Share of the outputs (logits) dropped, from 0 (off) to below 1; seldom wise, and Plan says so."""
    stochastic_depth_rate: Rate = 0.0
    """Share of samples for which the last residual branch is dropped, from 0 (off) to below 1; branch l of L is dropped
    for `l / L` of it (Huang et al. 2016)."""


class NormPlaces(SpecModel):
    """Where a network is normalised."""

    input: Bool = False
    """Normalise the input features or channels."""
    hidden: Bool = True
    """Normalise around each activation."""
    output: Bool = False
    """Normalise the outputs (logits)."""
    position: Literal["before_activation", "after_activation"] = "before_activation"
    """Where in a hidden layer: before its activation (Ioffe & Szegedy 2015) or after it."""


class BatchNorm(NormPlaces, BatchNormSettings):
    """Batch normalisation of the input, of the hidden layers, of the output."""


class LayerNorm(NormPlaces, SampleNormSettings):
    """Normalisation of all values of a sample (Ba et al. 2016), in the places of a batch norm."""


class GroupNorm(NormPlaces, GroupNormSettings):
    """Normalisation of groups of a sample's channels (Wu & He 2018), in the places of a batch norm."""


class InstanceNorm(NormPlaces, SampleNormSettings):
    """Normalisation of each channel of an image by itself (Ulyanov et al. 2016), in the places of a batch norm."""


class RMSNorm(NormPlaces, SampleNormSettings):
    """Division of a sample by its root mean square (Zhang & Sennrich 2019), in the places of a batch norm."""


Norm = BatchNorm | LayerNorm | GroupNorm | InstanceNorm | RMSNorm
NORMS = ("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm")


class Regularization(SpecModel):
    """Dropout and a norm, either, both or none, and their order where both act.

    There is one norm at most: batch norm is compared with another by changing its name.
    """

    dropout: Dropout | None = None
    """Dropout; absent: none."""
    batch_norm: BatchNorm | None = None
    """Batch normalisation; absent: none."""
    layer_norm: LayerNorm | None = None
    """Layer normalisation; absent: none."""
    group_norm: GroupNorm | None = None
    """Group normalisation; absent: none."""
    instance_norm: InstanceNorm | None = None
    """Instance normalisation, of images alone; absent: none."""
    rms_norm: RMSNorm | None = None
    """Root-mean-square normalisation; absent: none."""
    order: Literal["norm_then_dropout", "dropout_then_norm"] = "norm_then_dropout"
    """Where both act in one place. `norm_then_dropout`: dropout comes last, after activation and norm.
    `dropout_then_norm`: dropout stands directly before the norm, which shifts the variance that a batch norm sees
    between training and evaluation (Li et al. 2018)."""

    @property
    def norm(self) -> tuple[str, Norm] | None:
        """The norm with the name of its field; None: there is none."""
        given = ((name, getattr(self, name)) for name in NORMS)
        return next(((name, norm) for name, norm in given if norm is not None), None)

    def without_norm(self) -> Regularization:
        """The same without its norm."""
        return self.model_copy(update=dict.fromkeys(NORMS))

    def _rules(self) -> Iterator[Problem]:
        given = [name for name in NORMS if getattr(self, name) is not None]
        for other in given[1:]:
            yield Problem(other, f"there is {given[0]} already; give one norm at most")
