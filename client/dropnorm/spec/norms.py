"""Batch normalisation (Ioffe & Szegedy 2015) and the norms of a sample by itself: how, and where."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from dropnorm.spec._base import Bool, Epochs, Float, Int, Positive, Problem, SpecModel


class BatchNormSettings(SpecModel):
    """How a batch is normalised: `y = gamma * (x - mean) / sqrt(var + eps) + beta`, per feature or channel."""

    momentum: Annotated[Float, Field(gt=0.0, le=1.0)] = 0.1
    """Weight of the newest batch in the running mean and variance, above 0 to 1."""
    averaging: Literal["exponential", "cumulative"] = "exponential"
    """What the running statistics are: `exponential`, an average that forgets old batches by the momentum;
    `cumulative`, the mean over all batches since the start, without a momentum."""
    eps: Positive = 1e-5
    """Added to the variance before the root, above 0."""
    affine: Bool = True
    """Learn gamma and beta."""
    track_running_stats: Bool = True
    """Keep running statistics for evaluation; without them evaluation normalises by its own batches."""
    ghost_batch_size: Annotated[Int, Field(ge=2, le=2**20)] | None = None
    """Samples normalised together, 2 to 1,048,576: each training batch is cut into ghost batches of this size, the last
    of which takes what is left over (Hoffer et al. 2017); absent: the batch is not cut. Not for sequences."""
    freeze_after: Epochs | None = None
    """Epochs after which the running statistics stand still and training normalises by them, as evaluation does;
    absent: never."""
    freeze_affine: Bool = False
    """Gamma and beta stand still with them."""
    synchronized: Bool = False
    """Normalise by the batch over all devices of a job, not by each one's share of it. A job trains on one device so
    far, where it is the same, and Plan says so. Not for sequences."""

    def _rules(self) -> Iterator[Problem]:
        usual = BatchNormSettings.model_fields["momentum"].default
        if self.averaging == "cumulative" and self.momentum != usual:
            yield Problem("momentum", "a cumulative average has no momentum; leave it out")
        if not self.track_running_stats:
            for name in ("momentum", "averaging", "freeze_after"):
                if getattr(self, name) != BatchNormSettings.model_fields[name].default:
                    yield Problem(
                        name,
                        "there are no running statistics; set track_running_stats, or leave this out",
                    )
        if self.freeze_affine and self.freeze_after is None:
            yield Problem("freeze_affine", "give freeze_after too, the epochs before it")
        if self.freeze_affine and not self.affine:
            yield Problem(
                "freeze_affine", "there are no gamma and beta; leave it out, or set affine"
            )
        if self.synchronized and self.ghost_batch_size is not None:
            yield Problem(
                "synchronized", "ghost batches are small on purpose; leave either of the two out"
            )


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
