"""Batch normalisation (Ioffe & Szegedy 2015) and the norms of a sample by itself: how, and where."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dropnorm.spec._base import Bool, Float, Int, Positive, SpecModel


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
