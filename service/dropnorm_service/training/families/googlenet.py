"""GoogLeNet (Szegedy et al. 2014), batch-normalised as in Ioffe & Szegedy 2015."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from dropnorm.spec import GoogLeNet
from dropnorm_service.training.elements import Element
from dropnorm_service.training.families.sketch import Sketch
from dropnorm_service.training.layout import Frame


class _Module(NamedTuple):
    """Filters of an inception module: each way's, with those that reduce before it."""

    one: int
    reduce_three: int
    three: int
    reduce_five: int
    five: int
    pooled: int


# Table 1 of the paper; None is pooling.
_MODULES: Sequence[tuple[str, _Module | None]] = (
    ("3a", _Module(64, 96, 128, 16, 32, 32)),
    ("3b", _Module(128, 128, 192, 32, 96, 64)),
    ("pool3", None),
    ("4a", _Module(192, 96, 208, 16, 48, 64)),
    ("4b", _Module(160, 112, 224, 24, 64, 64)),
    ("4c", _Module(128, 128, 256, 24, 64, 64)),
    ("4d", _Module(112, 144, 288, 32, 64, 64)),
    ("4e", _Module(256, 160, 320, 32, 128, 128)),
    ("pool4", None),
    ("5a", _Module(256, 160, 320, 32, 128, 128)),
    ("5b", _Module(384, 192, 384, 48, 128, 128)),
)
_HEADS_AFTER = ("4a", "4d")
_HALVED_FROM = 16


def googlenet(settings: GoogLeNet, frame: Frame) -> Sequence[Element]:
    """A stem, nine inception modules, and the mean over what is left of the image.

    6,624,904 parameters without the auxiliary heads, with batch norm, 3 x 224 x 224 and 1000 classes. The
    stem shrinks the image by 8; on small images it begins with a 3x3 convolution and halves those that have 16
    pixels and keeps the others. Pooling at stride 2 pads by one pixel on both sides, where Caffe's form pads behind
    what is missing: the sizes are the same, and weights of that form do not fit exactly.
    """

    def wide(channels: int) -> int:
        return max(1, round(channels * settings.width))

    sketch = Sketch.of_images("googlenet", settings.activation, frame)
    small = sketch.small
    if small:
        sketch.unit("stem.0", wide(64))
    else:
        sketch.unit("stem.0", wide(64), 7, stride=2)
        sketch.pool("stem.0.pool", 3, 2, padding=1)
    sketch.unit("stem.1", wide(64), 1)
    sketch.unit("stem.2", wide(192))
    if not small or min(sketch.size) >= _HALVED_FROM:
        sketch.pool("stem.2.pool", 3, 2, padding=1)
    for label, filters in _MODULES:
        if filters is None:
            sketch.pool(f"inception.{label}", 3, 2, padding=1)
            continue
        _inception(sketch, f"inception.{label}", _Module(*map(wide, filters)))
        if settings.auxiliary_heads and label in _HEADS_AFTER:
            _head(sketch, f"inception.auxiliary{label}", wide, frame.outputs)
    sketch.average("pooled")
    return sketch.finish(frame.outputs)


def _inception(sketch: Sketch, name: str, filters: _Module) -> None:
    one, three, five, pooled = (
        sketch.way(name, label) for label in ("one", "three", "five", "pooled")
    )
    one.unit("0", filters.one, 1)
    three.unit("0", filters.reduce_three, 1)
    three.unit("1", filters.three)
    five.unit("0", filters.reduce_five, 1)
    five.unit("1", filters.five)
    pooled.pool("pool", 3, 1, padding=1)
    pooled.unit("0", filters.pooled, 1)
    ways = {"one": one, "three": three, "five": five, "pooled": pooled}
    sketch.block(name, "concatenate", ways)


def _head(sketch: Sketch, name: str, wide: Callable[[int], int], outputs: int) -> None:
    head = sketch.way(name, "head")
    head.pool("pool", 5, 3, mode="average")
    head.unit("0", wide(128), 1)
    head.classify([wide(1024)])
    head.linear("output", outputs)
    sketch.block(name, "side", {"head": head})
