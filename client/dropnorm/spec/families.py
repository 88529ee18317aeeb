"""Families of networks for images, each with its paper. Widths and depths are free; the defaults are the papers'.

Every family takes `regularization` alike: norm and dropout stand around each activation. Images below 64 pixels keep
their size in the stem, and pooling is left out once nothing is left to pool; a plan shows what became of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from dropnorm.spec._base import Bool, Float, Int, Problem, SpecModel, Width
from dropnorm.spec.layers import ActivationFunction

Widths = Annotated[tuple[Width, ...], Field(min_length=1, max_length=16)]
Blocks = Annotated[
    tuple[Annotated[Int, Field(ge=1, le=64)], ...], Field(min_length=1, max_length=8)
]

VGG_DEPTHS = (11, 13, 16, 19)


def _known_depth(depth: int | None, known: Sequence[int]) -> Iterator[Problem]:
    if depth is not None and depth not in known:
        *most, last = map(str, known)
        yield Problem("depth", f"there is no depth {depth}; choose {', '.join(most)} or {last}")


class Staged(SpecModel):
    """A family whose depth stands for blocks in stages, which may be given themselves; never both."""

    DEPTHS: ClassVar[Sequence[int]]
    """Depths of the paper, first the one taken where nothing is given."""

    depth: Int | None = None
    """Layers with weights."""
    blocks: Blocks | None = None
    """Blocks of each stage."""

    @model_validator(mode="before")
    @classmethod
    def _default_depth(cls, values: Any) -> Any:
        """The default depth, written out, where neither depth nor blocks are given."""
        if not isinstance(values, Mapping):
            return values
        if values.get("depth") is None and values.get("blocks") is None:
            return {**values, "depth": cls.DEPTHS[0]}
        return values

    def _rules(self) -> Iterator[Problem]:
        yield from _known_depth(self.depth, self.DEPTHS)
        if self.depth is not None and self.blocks is not None:
            yield Problem("blocks", "give either depth or blocks: a depth has its own blocks")


class AlexNet(SpecModel):
    """AlexNet in its single-column form (Krizhevsky 2014, after Krizhevsky et al. 2012).

    Five convolutions, three of them followed by pooling, then wide linear layers. Norm goes to the convolutions,
    dropout to both; the paper's dropout is `rate` 0.5 with `conv_rate` 0.
    """

    kind: Literal["alexnet"] = "alexnet"
    channels: Annotated[tuple[Width, ...], Field(min_length=5, max_length=5)] = (
        64,
        192,
        384,
        256,
        256,
    )
    """Filters of the five convolutions, 1 to 1,048,576 each."""
    hidden: Widths = (4096, 4096)
    """Widths of the linear layers before the output, 1 to 1,048,576 each, 1 to 16 of them."""
    activation: ActivationFunction = "relu"
    """The non-linearity after each layer but the last."""


class VGG(SpecModel):
    """VGG (Simonyan & Zisserman 2014): 3x3 convolutions in five stages with pooling between, then linear layers.

    With `regularization.batch_norm` it is VGG-BN. Norm goes to the convolutions, dropout to both; the paper's dropout
    is `rate` 0.5 with `conv_rate` 0. Its convolutions have biases, under a norm too, as the reference has.
    """

    kind: Literal["vgg"] = "vgg"
    depth: Annotated[Int, Field(ge=11, le=19)] = 16
    """Layers with weights: 11, 13, 16 or 19, configurations A, B, D and E of the paper."""
    width: Annotated[Int, Field(ge=1, le=2**16)] = 64
    """Filters of the first stage, 1 to 65,536; later ones have 2, 4, 8 and 8 times as many."""
    hidden: Widths = (4096, 4096)
    """Widths of the linear layers before the output, 1 to 1,048,576 each, 1 to 16 of them."""
    activation: ActivationFunction = "relu"
    """The non-linearity after each layer but the last."""

    def _rules(self) -> Iterator[Problem]:
        yield from _known_depth(self.depth, VGG_DEPTHS)


class GoogLeNet(SpecModel):
    """GoogLeNet (Szegedy et al. 2014): nine inception modules. With batch norm it is that of Ioffe & Szegedy 2015.

    Its widest kernels are 3x3, as in the reference implementation. In training two auxiliary heads guess from the
    middle of the network, and 0.3 times the loss of each is added. On images below 64 pixels the stem halves those of
    16 and more and keeps the others.
    """

    kind: Literal["googlenet"] = "googlenet"
    width: Annotated[Float, Field(gt=0.0, le=16.0)] = 1.0
    """Factor on the filters of every layer, above 0 to 16; each layer keeps at least one."""
    auxiliary_heads: Bool = True
    """Train with the two auxiliary heads; they take no part in evaluation."""
    activation: ActivationFunction = "relu"
    """The non-linearity after each convolution."""


class ResNet(Staged):
    """Residual networks (He et al. 2015), and with `squeeze` SENet (Hu et al. 2018).

    Depths 18 to 152 are those for ImageNet, in four stages; 20, 32, 44, 56 and 110 those for CIFAR, in three. Where a
    block changes the shape its shortcut is a 1x1 convolution with norm (option B). A convolution has a bias only where
    no norm follows it.
    """

    DEPTHS = (18, 34, 50, 101, 152, 20, 32, 44, 56, 110)

    kind: Literal["resnet"] = "resnet"
    depth: Annotated[Int, Field(ge=18, le=152)] | None = None
    """Layers with weights: 18, 34, 50, 101 or 152, or in the CIFAR form 20, 32, 44, 56 or 110; absent: 18, unless
    `blocks` are given."""
    blocks: Blocks | None = None
    """Residual blocks of each stage, 1 to 64 each in 1 to 8 stages, instead of a `depth`; absent: those of the
    depth."""
    bottleneck: Bool | None = None
    """Blocks of 1x1, 3x3 and 1x1 convolutions rather than two of 3x3; absent: from depth 50 on, as in the paper."""
    width: Annotated[Int, Field(ge=1, le=2**16)] | None = None
    """Filters of the first stage, 1 to 65,536, doubled in each later one; absent: 64, in the CIFAR form 16."""
    squeeze: Annotated[Int, Field(ge=1, le=2**16)] | None = None
    """Squeeze-and-excitation in each block with this reduction, 1 to 65,536, 16 in the paper; absent: none."""
    zero_init: Bool = False
    """Start each residual branch at zero, so that the network starts as its shortcuts (Goyal et al. 2017)."""
    activation: ActivationFunction = "relu"
    """The non-linearity."""


class DenseNet(Staged):
    """Densely connected networks (Huang et al. 2016): every layer sees all before it in its block (DenseNet-BC)."""

    DEPTHS = (121, 169, 201)

    kind: Literal["densenet"] = "densenet"
    depth: Annotated[Int, Field(ge=121, le=201)] | None = None
    """Layers with weights: 121, 169 or 201; absent: 121, unless `blocks` are given."""
    blocks: Blocks | None = None
    """Layers of each dense block, 1 to 64 each in 1 to 8 blocks, instead of a `depth`; absent: those of the depth."""
    growth: Annotated[Int, Field(ge=1, le=2**12)] = 32
    """Channels each layer adds, 1 to 4,096; the stem has twice as many."""
    compression: Annotated[Float, Field(gt=0.0, le=1.0)] = 0.5
    """Share of the channels that a transition between blocks keeps, above 0 to 1."""
    bottleneck: Annotated[Int, Field(ge=1, le=64)] = 4
    """Channels of each layer's 1x1 convolution in multiples of `growth`, 1 to 64."""
    activation: ActivationFunction = "relu"
    """The non-linearity."""
