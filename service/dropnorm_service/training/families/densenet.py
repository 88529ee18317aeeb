"""Densely connected networks (Huang et al. 2016), DenseNet-BC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dropnorm.spec import DenseNet
from dropnorm_service.training.elements import Element
from dropnorm_service.training.families.sketch import Sketch
from dropnorm_service.training.layout import Frame

_BLOCKS: Mapping[int, Sequence[int]] = {
    121: (6, 12, 24, 16),
    169: (6, 12, 32, 32),
    201: (6, 12, 48, 32),
}


def densenet(settings: DenseNet, frame: Frame) -> Sequence[Element]:
    """Dense blocks with a transition between them that narrows and halves the image.

    7,978,856 parameters at depth 121 and 20,013,928 at 201, with batch norm, 3 x 224 x 224 and 1000 classes.
    The stem is a 7x7 convolution with stride 2 and pooling, on small images a 3x3 convolution that
    keeps the size. Norm and activation come before each convolution, and once more at the end.
    """
    blocks = settings.blocks or _BLOCKS[settings.depth or min(_BLOCKS)]
    growth, channels = settings.growth, 2 * settings.growth
    sketch = Sketch.of_images("densenet", settings.activation, frame)
    if sketch.small:
        sketch.conv("stem.conv", channels)
    else:
        sketch.conv("stem.conv", channels, 7, stride=2)
        sketch.activate("stem")
        sketch.pool("stem.pool", 3, 2, padding=1)
    for number, count in enumerate(blocks):
        for index in range(count):
            _layer(sketch, f"blocks.{number}.{index}", growth, settings.bottleneck)
        channels += count * growth
        if number + 1 < len(blocks):
            channels = max(1, int(channels * settings.compression))
            name = f"blocks.{number}.transition"
            sketch.activate(name)
            sketch.conv(f"{name}.conv", channels, 1)
            sketch.pool(f"{name}.pool", 2, 2, mode="average")
    sketch.activate("last")
    sketch.average("pooled")
    return sketch.finish(frame.outputs)


def _layer(sketch: Sketch, name: str, growth: int, bottleneck: int) -> None:
    new = sketch.way(name, "new")
    new.activate("0")
    new.conv("0.conv", bottleneck * growth, 1)
    new.activate("1")
    new.conv("1.conv", growth)
    sketch.block(name, "concatenate", {"input": None, "new": new})
