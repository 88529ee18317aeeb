"""Residual networks (He et al. 2015), with squeeze-and-excitation if asked (Hu et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dropnorm.spec import ResNet
from dropnorm.spec import layers as spec
from dropnorm_service.training.elements import Element
from dropnorm_service.training.families.sketch import Sketch
from dropnorm_service.training.layout import Frame

_IMAGENET: Mapping[int, Sequence[int]] = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
_FIRST_BOTTLENECK = 50
_EXPANSION = 4


def resnet(settings: ResNet, frame: Frame) -> Sequence[Element]:
    """A stem, stages of residual blocks, and the mean over what is left of the image.

    11,689,512 parameters at depth 18, 25,557,032 at 50 and 60,192,808 at 152 (28,088,024 at 50 with a
    squeeze of 16), with batch norm, 3 x 224 x 224 and 1000 classes. The stem is a 7x7 convolution with
    stride 2 and pooling; in the CIFAR form, and on small images, a 3x3 convolution that keeps the size.
    The first block of each stage but the first halves the image.
    """
    blocks, bottleneck, width, cifar = _shape(settings)
    sketch = Sketch.of_images("resnet", settings.activation, frame)
    if cifar or sketch.small:
        sketch.unit("stem", width)
    else:
        sketch.unit("stem", width, 7, stride=2)
        sketch.pool("stem.pool", 3, 2, padding=1)
    channels = width
    for stage, count in enumerate(blocks):
        inner = width * 2**stage
        outer = inner * (_EXPANSION if bottleneck else 1)
        for index in range(count):
            stride = 2 if stage and not index else 1
            name = f"stages.{stage}.{index}"
            _block(sketch, settings, name, inner, outer, stride, bottleneck, channels != outer)
            channels = outer
    sketch.average("pooled")
    return sketch.finish(frame.outputs)


def _shape(settings: ResNet) -> tuple[Sequence[int], bool, int, bool]:
    """Blocks per stage, whether they are bottlenecks, filters of the first stage, whether it is the CIFAR form."""
    depth = settings.depth or 0
    cifar = settings.blocks is None and depth not in _IMAGENET
    cifar_blocks = ((depth - 2) // 6,) * 3
    blocks = settings.blocks or (cifar_blocks if cifar else _IMAGENET[depth])
    deep = not cifar and depth >= _FIRST_BOTTLENECK
    bottleneck = deep if settings.bottleneck is None else settings.bottleneck
    return blocks, bottleneck, settings.width or (16 if cifar else 64), cifar


def _block(
    sketch: Sketch, settings: ResNet, name: str, inner: int, outer: int, stride: int,
    bottleneck: bool, widens: bool,
) -> None:  # fmt: skip
    branch = sketch.way(f"{name}.sum", "branch")
    if bottleneck:
        branch.unit("0", inner, 1)
        branch.unit("1", inner, stride=stride)
        branch.conv("2.conv", outer, 1)
        branch.norm("2", zero=settings.zero_init)
    else:
        branch.unit("0", inner, stride=stride)
        branch.conv("1.conv", outer)
        branch.norm("1", zero=settings.zero_init)
    if settings.squeeze is not None:
        _squeeze(branch, outer, settings.squeeze)
    shortcut = None
    if stride > 1 or widens:
        shortcut = sketch.way(f"{name}.sum", "shortcut")
        shortcut.conv("0.conv", outer, 1, stride=stride)
        shortcut.norm("0")
    sketch.block(f"{name}.sum", "add", {"branch": branch, "shortcut": shortcut})
    sketch.activate(name, norm=False)  # the sum of what is normed already


def _squeeze(branch: Sketch, channels: int, reduction: int) -> None:
    """Scale each channel by what the means of all say; regularization stays out of the gate."""
    gate = branch.way("squeeze", "gate")
    gate.add("mean", spec.Pool(mode="global_average"))
    gate.conv("reduce", max(1, channels // reduction), 1, bias=True)
    gate.add("activation", spec.Activation(function="relu"))
    gate.conv("expand", channels, 1, bias=True)
    gate.add("sigmoid", spec.Activation(function="sigmoid"))
    branch.block("squeeze", "gate", {"input": None, "gate": gate})
