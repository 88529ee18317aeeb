"""The layers a `Sequential` is written in. Shapes are per sample: a feature vector `[F]` or an image `[C, H, W]`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from dropnorm.spec._base import MAX_WIDTH as MAX_WIDTH
from dropnorm.spec._base import Bool, Float, Int, Problem, Rate, Small, SpecModel, Width
from dropnorm.spec.dropout import DropoutSettings
from dropnorm.spec.norms import BatchNormSettings, GroupNormSettings, SampleNormSettings

ActivationFunction = Literal["relu", "leaky_relu", "elu", "selu", "gelu", "silu", "tanh", "sigmoid"]

MAX_LAYERS = 512
MAX_NESTING = 8


class Linear(SpecModel):
    """A fully connected layer: `[F]` -> `[units]`."""

    kind: Literal["linear"] = "linear"
    units: Width
    """Width of the output, 1 to 1,048,576."""
    bias: Bool = True
    """Learn an additive bias."""
    dropconnect_rate: Rate | None = None
    """Share of its weights dropped in training, from 0 (off) to below 1 (Wan et al. 2013); absent: that of
    `regularization.dropout`, if an activation follows."""


class Conv(SpecModel):
    """A two-dimensional convolution with a square kernel: `[C, H, W]` -> `[channels, H', W']`."""

    kind: Literal["conv"] = "conv"
    channels: Width
    """Number of filters, 1 to 1,048,576."""
    kernel_size: Small = 3
    """Height and width of the kernel in pixels, 1 to 1024."""
    stride: Small = 1
    """Step of the kernel in pixels, 1 to 1024."""
    padding: Annotated[Int, Field(ge=0, le=1024)] | None = None
    """Zeros added on each side in pixels, 0 to 1024; absent: `dilation * (kernel_size - 1) // 2`, which keeps the
    size of an image under an odd kernel at stride 1."""
    dilation: Small = 1
    """Distance between kernel elements in pixels, 1 to 1024."""
    groups: Width = 1
    """Blocks the channels are split into; must divide the channels on both sides."""
    bias: Bool = True
    """Learn an additive bias per channel."""

    def _rules(self) -> Iterator[Problem]:
        if self.channels % self.groups:
            yield Problem(
                "groups",
                f"{self.groups} groups do not divide {self.channels} channels; "
                "give a divisor of both the input's and the output's channels",
            )


class Pool(SpecModel):
    """Pooling over windows of an image, or over the whole of it: `[C, H, W]` -> `[C, H', W']`."""

    kind: Literal["pool"] = "pool"
    mode: Literal["max", "average", "global_average"] = "max"
    """What a window becomes; `global_average` takes the mean over the image: `[C, 1, 1]`."""
    kernel_size: Small = 2
    """Height and width of the window in pixels, 1 to 1024; not for `global_average`."""
    stride: Small | None = None
    """Step of the window in pixels, 1 to 1024; absent: the kernel size; not for `global_average`."""
    padding: Annotated[Int, Field(ge=0, le=512)] = 0
    """Implicit padding on each side in pixels, at most half the kernel size; not for `global_average`."""

    def _rules(self) -> Iterator[Problem]:
        if self.mode == "global_average":
            for name in ("kernel_size", "stride", "padding"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    yield Problem(name, f"global_average has no window; leave {name} out")
        elif self.padding * 2 > self.kernel_size:
            yield Problem(
                "padding",
                f"pooling pads by at most half its kernel size, here {self.kernel_size // 2}",
            )


class Flatten(SpecModel):
    """An image or map becomes a feature vector: `[C, H, W]` -> `[C * H * W]`."""

    kind: Literal["flatten"] = "flatten"


class Activation(SpecModel):
    """An elementwise non-linearity. `regularization` places its dropout and batch norm around these."""

    kind: Literal["activation"] = "activation"
    function: ActivationFunction = "relu"
    """Which non-linearity."""
    negative_slope: Annotated[Float, Field(ge=0.0, le=1.0)] | None = None
    """Slope of a leaky ReLU below 0, 0 to 1; absent: 0.01. Other functions have none."""

    def _rules(self) -> Iterator[Problem]:
        if self.negative_slope is not None and self.function != "leaky_relu":
            yield Problem(
                "negative_slope",
                f"{self.function} has no slope to set; leave it out, or choose leaky_relu",
            )


class Dropout(DropoutSettings):
    """Dropout of single units at this very place, besides what `regularization` adds."""

    kind: Literal["dropout"] = "dropout"


class BatchNorm(BatchNormSettings):
    """Batch normalisation at this very place, besides what `regularization` adds."""

    kind: Literal["batch_norm"] = "batch_norm"


class LayerNorm(SampleNormSettings):
    """Layer normalisation (Ba et al. 2016) at this very place, besides what `regularization` adds."""

    kind: Literal["layer_norm"] = "layer_norm"


class GroupNorm(GroupNormSettings):
    """Group normalisation (Wu & He 2018) at this very place, besides what `regularization` adds."""

    kind: Literal["group_norm"] = "group_norm"


class InstanceNorm(SampleNormSettings):
    """Instance normalisation of an image (Ulyanov et al. 2016) at this very place, besides `regularization`'s."""

    kind: Literal["instance_norm"] = "instance_norm"


class RMSNorm(SampleNormSettings):
    """Root-mean-square normalisation (Zhang & Sennrich 2019) at this very place, besides what `regularization` adds."""

    kind: Literal["rms_norm"] = "rms_norm"


class Residual(SpecModel):
    """`y = layers(x) + shortcut(x)` (He et al. 2015).

    The shortcut is the identity where shapes agree; otherwise a 1x1 convolution whose stride matches the change of
    the image's size, or a linear projection of a feature vector, each without bias.
    """

    kind: Literal["residual"] = "residual"
    layers: Annotated[
        tuple[Layer, ...], Field(max_length=MAX_LAYERS, json_schema_extra={"minItems": 1})
    ]
    """The residual branch, 1 to 512 layers; residual blocks nest at most 8 deep."""

    def _rules(self) -> Iterator[Problem]:
        if not self.layers:
            yield Problem("layers", "give the residual branch at least one layer")


Layer = Annotated[
    Linear
    | Conv
    | Pool
    | Flatten
    | Activation
    | Dropout
    | BatchNorm
    | LayerNorm
    | GroupNorm
    | InstanceNorm
    | RMSNorm
    | Residual,
    Field(discriminator="kind"),
]
Residual.model_rebuild()


def walk(layers: tuple[Layer, ...], path: str = "layers") -> Iterator[tuple[str, Layer]]:
    """Every layer, nested ones too, with its path: `layers[2].residual.layers[0].conv`."""
    for index, layer in enumerate(layers):
        here = f"{path}[{index}].{layer.kind}"
        yield here, layer
        if isinstance(layer, Residual):
            yield from walk(layer.layers, f"{here}.layers")
