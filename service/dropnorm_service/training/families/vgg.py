"""VGG (Simonyan & Zisserman 2014)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dropnorm.spec import VGG
from dropnorm_service.training.elements import Element
from dropnorm_service.training.families.sketch import Sketch
from dropnorm_service.training.layout import Frame

_STAGES: Mapping[int, Sequence[int]] = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
_WIDTHS = (1, 2, 4, 8, 8)


def vgg(settings: VGG, frame: Frame) -> Sequence[Element]:
    """Stages of 3x3 convolutions, pooling after each, then linear layers.

    138,357,544 parameters at depth 16, 3 x 224 x 224 and 1000 classes; 138,365,992 with batch norm. Pooling
    is left out once one pixel is left, so that small images pass as well.
    """
    sketch = Sketch.of_images("vgg", settings.activation, frame)
    for stage, (count, factor) in enumerate(zip(_STAGES[settings.depth], _WIDTHS, strict=True)):
        for index in range(count):
            name = f"stages.{stage}.{index}"
            sketch.conv(f"{name}.conv", settings.width * factor, bias=True)
            sketch.activate(name)
        sketch.pool(f"stages.{stage}.pool", 2, 2)
    sketch.classify(settings.hidden)
    return sketch.finish(frame.outputs)
