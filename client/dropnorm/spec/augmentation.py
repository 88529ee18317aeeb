"""Training samples that are changed at random each time they are seen; evaluation sees them as they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from dropnorm.spec._base import Float, Int, Positive, Problem, SpecModel

Probability = Annotated[Float, Field(gt=0.0, le=1.0)]
Concentration = Annotated[Float, Field(ge=0.01, le=1000.0)]


class Shift(SpecModel):
    """Images are moved by whole pixels, each way by as many as chance has it.

    It is the same as a random crop of the size of the image from one that is padded by so many pixels (He et al. 2015).
    """

    pixels: Annotated[Int, Field(ge=1, le=1024)] = 4
    """Pixels up or down and left or right at most, 1 to 1024 and fewer than the image has."""
    fill: Literal["black", "edge", "reflect"] = "black"
    """What comes in at the edges: `black`, the raw value 0; `edge`, the outermost pixel again; `reflect`, the image
    mirrored at its outermost pixel."""


class Crop(SpecModel):
    """A random piece of the image is enlarged to all of it, bilinearly (Szegedy et al. 2014, section 6).

    A piece that would be higher or wider than the image is cut to it.
    """

    min_area: Annotated[Float, Field(gt=0.0, lt=1.0)] = 0.25
    """The least share of the image's area, above 0 to below 1; the share is drawn evenly from this to 1. The paper has
    0.08, for photographs."""
    max_aspect: Annotated[Float, Field(ge=1.0, le=10.0)] = 4.0 / 3.0
    """Largest ratio of the piece's sides over the ratio of the image's, in favour of either, 1 to 10; 1 keeps them."""


class Augmentation(SpecModel):
    """Random changes of the training samples, on the device and anew each time; all are drawn per sample.

    They come in this order: flips and shift, crop, mixup and cutmix, noise. The training loss is that of the changed
    samples; validation, test and the computation of running statistics anew see the samples themselves.
    """

    horizontal_flip: Probability | None = None
    """Probability that an image is mirrored left to right, above 0 to 1; 0.5 is common; absent: never."""
    vertical_flip: Probability | None = None
    """Probability that an image is turned upside down in a mirror, above 0 to 1; absent: never."""
    shift: Shift | None = None
    """Move images by a few pixels; absent: not at all."""
    crop: Crop | None = None
    """Enlarge a random piece of each image; absent: none."""
    mixup_alpha: Concentration | None = None
    """Mixup (Zhang et al. 2017): each sample and its target become a mean of themselves and of another of the batch,
    with a share drawn from Beta(alpha, alpha), alpha from 0.01 to 1000; 0.2 to 1 is common. Where cutmix is given too,
    each sample undergoes one of them, with even chances. For classes and numbers; absent: none."""
    cutmix_alpha: Concentration | None = None
    """CutMix (Yun et al. 2019): a box of each image, of a share of its area drawn from Beta(alpha, alpha), is replaced
    by that of another, and its target in proportion; alpha from 0.01 to 1000; 1 is common. For classes of images;
    absent: none."""
    noise_std: Positive | None = None
    """Standard deviation of Gaussian noise that is added to the input, above 0, on the scale that the network sees:
    that of standardised values, unless `standardization` is none; absent: no noise."""

    def _rules(self) -> Iterator[Problem]:
        if all(getattr(self, name) is None for name in type(self).model_fields):
            yield Problem(
                "", "nothing is changed; give at least one setting, or leave augmentation out"
            )
