"""Corruptions of images at five strengths (Hendrycks & Dietterich 2019), in batched tensor code.

Noise and contrast have the strengths of ImageNet-C. Those of the blur are CIFAR-10-C's up to 32 pixels, and
grow with larger images. All take and give images `[batch, channels, height, width]` with values 0 to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil, floor

import torch
from torch import Tensor
from torch.nn import functional as F

from dropnorm.results.diagnostics import Corruption

STRENGTHS = (1, 2, 3, 4, 5)

_NOISE = (0.08, 0.12, 0.18, 0.26, 0.38)
"""Standard deviations."""
_BLUR = (0.4, 0.6, 0.7, 0.8, 1.0)
"""Standard deviations in pixels of an image whose shorter side has 32 or fewer: less would leave it as it is."""
_CONTRAST = (0.4, 0.3, 0.2, 0.1, 0.05)
"""What is left of the distance from the mean."""
_SIDE = 32


def gaussian_noise(x: Tensor, strength: int, generator: torch.Generator) -> Tensor:
    """Independent normal noise on every value."""
    noise = torch.randn(x.shape, generator=generator, device=x.device)
    return (x + _NOISE[strength - 1] * noise).clamp(0.0, 1.0)


def gaussian_blur(x: Tensor, strength: int, generator: torch.Generator) -> Tensor:
    """Convolution with a normal density, rows and columns one after the other; edges go on as they are."""
    deviation = _BLUR[strength - 1] * max(1.0, min(x.shape[-2:]) / _SIDE)
    radius = max(1, ceil(4.0 * deviation))
    places = torch.arange(-radius, radius + 1, device=x.device)
    kernel = (-0.5 * (places / deviation).square()).exp()
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, 1, -1)
    padded = F.pad(x, (radius, radius, radius, radius), mode="replicate")
    rows = F.conv2d(padded, kernel, groups=x.shape[1])
    return F.conv2d(rows, kernel.transpose(2, 3), groups=x.shape[1]).clamp(0.0, 1.0)


def contrast(x: Tensor, strength: int, generator: torch.Generator) -> Tensor:
    """All values of a channel moved towards their mean."""
    mean = x.mean(dim=(2, 3), keepdim=True)
    return (mean + _CONTRAST[strength - 1] * (x - mean)).clamp(0.0, 1.0)


def shift(x: Tensor, strength: int, generator: torch.Generator) -> Tensor:
    """Each image moved along both axes, by `strength / 32` of each side; edges go on.

    The directions are drawn for each image and axis. Between whole pixels values are interpolated linearly.
    """
    for axis in (2, 3):
        side = x.shape[axis]
        distance = strength * side / _SIDE
        whole, part = floor(distance), distance % 1.0
        signs = torch.randint(0, 2, (len(x), 1), generator=generator, device=x.device) * 2 - 1
        moved = _moved(x, axis, whole * signs)
        x = moved if not part else moved.lerp(_moved(x, axis, (whole + 1) * signs), part)
    return x


def _moved(x: Tensor, axis: int, distances: Tensor) -> Tensor:
    """Images moved along an axis by a distance each, int64 `[batch, 1]` in pixels."""
    side = x.shape[axis]
    sources = (torch.arange(side, device=x.device) - distances).clamp(0, side - 1)
    shape = [len(x), 1, 1, 1]
    shape[axis] = side
    return x.gather(axis, sources.view(shape).expand_as(x))


CORRUPTIONS: Mapping[Corruption, Callable[[Tensor, int, torch.Generator], Tensor]] = {
    "gaussian_noise": gaussian_noise,
    "gaussian_blur": gaussian_blur,
    "contrast": contrast,
    "shift": shift,
}
"""Name -> corruption of images, at a strength of 1 to 5, with a generator on their device."""
