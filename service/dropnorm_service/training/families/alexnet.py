"""AlexNet (Krizhevsky et al. 2012) in the single-column form of Krizhevsky 2014."""

from __future__ import annotations

from collections.abc import Sequence

from dropnorm.spec import AlexNet
from dropnorm_service.training.elements import Element
from dropnorm_service.training.families.sketch import Sketch
from dropnorm_service.training.layout import Frame

_POOLED = (0, 1, 4)


def alexnet(settings: AlexNet, frame: Frame) -> Sequence[Element]:
    """Five convolutions and wide linear layers; 61,100,840 parameters at 3 x 224 x 224 and 1000 classes.

    The first convolution is 11x11 with stride 4; on small images it is 3x3 and keeps the size. Pooling
    is left out where its window of 3 does not fit.
    """
    sketch = Sketch.of_images("alexnet", settings.activation, frame)
    for index, channels in enumerate(settings.channels):
        name = f"features.{index}"
        if index == 0 and not sketch.small:
            sketch.conv(f"{name}.conv", channels, 11, stride=4, padding=2, bias=True)
        else:
            sketch.conv(f"{name}.conv", channels, 5 if index == 1 else 3, bias=True)
        sketch.activate(name)
        if index in _POOLED:
            sketch.pool(f"{name}.pool", 3, 2)
    sketch.classify(settings.hidden)
    return sketch.finish(frame.outputs)
