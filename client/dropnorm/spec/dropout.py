"""Dropout (Srivastava et al. 2014) and its relatives: what is dropped, how much, and where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from dropnorm.spec._base import Epochs, Float, Positive, Problem, Rate, SpecModel

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
    et al. 2015), of a sequence features over all its tokens (Gal & Ghahramani 2016), of a feature vector single values;
    `gaussian`, nothing, but values are multiplied by noise of mean 1 and variance `rate / (1 - rate)` (Srivastava et
    al. 2014, section 10); `alpha`, values go to the negative saturation of SELU (Klambauer et al. 2017)."""
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


Factor = Annotated[Float, Field(ge=0.0, le=1.0)]


class LinearDropoutSchedule(SpecModel):
    """A ramp, up or down: the factor goes from `start_factor` to `end_factor` in equal steps, one each epoch."""

    kind: Literal["linear"] = "linear"
    start_factor: Factor = 0.0
    """Share of the rates in force up to `from_epoch`, 0 to 1."""
    end_factor: Factor = 1.0
    """Share of the rates in force from `to_epoch` on, 0 to 1; another than `start_factor`."""
    from_epoch: Epochs = 1
    """Epoch, from 1, after which the ramp begins."""
    to_epoch: Epochs | None = None
    """Epoch with which it ends, later than `from_epoch`; absent: the training's last."""

    def _rules(self) -> Iterator[Problem]:
        if self.start_factor == self.end_factor:
            yield Problem(
                "end_factor",
                f"from {self.start_factor:g} to {self.end_factor:g} there is no ramp; leave the schedule out and "
                "give the rates themselves",
            )
        if self.to_epoch is not None and self.to_epoch <= self.from_epoch:
            yield Problem(
                "to_epoch",
                f"the ramp begins after epoch {self.from_epoch} and would end with epoch {self.to_epoch}; end it later",
            )


class OffAfterDropoutSchedule(SpecModel):
    """Full rates for a number of epochs, then none: early dropout (Liu et al. 2023).

    Late dropout, none at first and then full rates, is a linear schedule of one step.
    """

    kind: Literal["off_after"] = "off_after"
    epochs: Epochs
    """Epochs with dropout, 1 to 100,000."""


class CurriculumDropoutSchedule(SpecModel):
    """From none towards the full rates: `rate * (1 - exp(-gamma * t))` after t epochs (Morerio et al. 2017)."""

    kind: Literal["curriculum"] = "curriculum"
    gamma: Positive | None = None
    """Speed per epoch, above 0; absent: 10 by the number of epochs, the paper's rule."""


DropoutSchedule = Annotated[
    LinearDropoutSchedule | OffAfterDropoutSchedule | CurriculumDropoutSchedule,
    Field(discriminator="kind"),
]


class Dropout(DropoutSettings):
    """Dropout after each activation (`rate`), of input and output, of residual branches, of tokens, and of weights."""

    conv_rate: Rate | None = None
    """Share of units dropped after the activations of convolutions, from 0 (off) to below 1; absent: as `rate`."""
    input_rate: Rate = 0.0
    """Share of input features dropped, from 0 (off) to below 1."""
    output_rate: Rate = 0.0
    """Share of the outputs (logits) dropped, from 0 (off) to below 1; seldom wise, and Plan says so."""
    stochastic_depth_rate: Rate = 0.0
    """Share of samples for which the last residual branch is dropped, from 0 (off) to below 1; branch l of L is dropped
    for `l / L` of it (Huang et al. 2016)."""
    embedding_rate: Rate | None = None
    """Share of units dropped of embedded tokens, from 0 (off) to below 1; absent: as `rate`."""
    attention_rate: Rate | None = None
    """Share of attention's weights dropped, from 0 (off) to below 1, singly and inverted whatever `method` and
    `rescaling` say; absent: as `rate`."""
    residual_rate: Rate | None = None
    """Share of units dropped at the end of each branch of a transformer, from 0 (off) to below 1; absent: as
    `rate`."""
    recurrent_rate: Rate = 0.0
    """Share of the units dropped of what a recurrent layer takes from its last step, from 0 (off) to below 1, singly
    and inverted whatever `method` and `rescaling` say, the same ones in all steps of a sequence (Gal & Ghahramani
    2016)."""
    dropconnect_rate: Rate = 0.0
    """Share of the weights dropped in linear layers that an activation follows, from 0 (off) to below 1: one mask for
    a batch, what is kept divided by `1 - rate`, so that evaluation has the mean weights (Wan et al. 2013); biases
    stay."""
    schedule: DropoutSchedule | None = None
    """How all these rates change from epoch to epoch, as a factor of 0 to 1 on each; absent: not at all."""
