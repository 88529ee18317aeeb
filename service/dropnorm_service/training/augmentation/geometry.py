"""Images mirrored, moved and cropped, each of a batch by chances of its own."""

from __future__ import annotations

from math import log

import torch
from torch import Tensor
from torch.nn import functional as F

from dropnorm.spec import Augmentation, Crop


class Displacement:
    """Flips and shifts in one look-up: each pixel comes from a row and a column drawn for its image.

    Args:
        settings: probabilities of the flips, and the shift.
        black: an image without light as a network takes it, `[1, channels, height, width]`.
    """

    def __init__(self, settings: Augmentation, black: Tensor) -> None:
        self._up, self._across = settings.vertical_flip, settings.horizontal_flip
        self._shift, self._black = settings.shift, black

    def __call__(self, x: Tensor) -> Tensor:
        """`[batch, channels, height, width]` -> the same."""
        height, width = x.shape[2:]
        rows, columns = self._sources(x, height, self._up), self._sources(x, width, self._across)
        if self._shift is None or self._shift.fill == "edge":
            return look_up(x, rows.clamp(0, height - 1), columns.clamp(0, width - 1))
        if self._shift.fill == "reflect":
            return look_up(x, reflected(rows, height), reflected(columns, width))
        seen = inside(rows, height).unsqueeze(2) & inside(columns, width).unsqueeze(1)
        moved = look_up(x, rows.clamp(0, height - 1), columns.clamp(0, width - 1))
        return torch.where(seen.unsqueeze(1), moved, self._black)

    def _sources(self, x: Tensor, size: int, flip: float | None) -> Tensor:
        """Where the pixels along one side come from: int64 `[batch, size]`, beyond the image too."""
        places = torch.arange(size, device=x.device).expand(len(x), size)
        if self._shift is not None:
            most = self._shift.pixels
            places = places + torch.randint(-most, most + 1, (len(x), 1), device=x.device)
        if flip is not None:
            flipped = torch.rand(len(x), 1, device=x.device) < flip
            places = torch.where(flipped, size - 1 - places, places)
        return places


def inside(places: Tensor, size: int) -> Tensor:
    """Which places along a side the image has."""
    return (places >= 0) & (places < size)


def reflected(places: Tensor, size: int) -> Tensor:
    """Places less than a side's length beyond the image, mirrored at its outermost pixels."""
    return (size - 1) - ((size - 1) - places.abs()).abs()


def look_up(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Pixel (i, j) of image b is `x[b, :, rows[b, i], columns[b, j]]`."""
    batch, channels, _, width = x.shape
    index = (rows.unsqueeze(2) * width + columns.unsqueeze(1)).view(batch, 1, -1)
    return x.flatten(2).gather(2, index.expand(-1, channels, -1)).view_as(x)


class Crops:
    """Random pieces, enlarged bilinearly to the size of the image (Szegedy et al. 2014, section 6)."""

    def __init__(self, settings: Crop) -> None:
        self._min_area, self._aspect = settings.min_area, log(settings.max_aspect)

    def __call__(self, x: Tensor) -> Tensor:
        """`[batch, channels, height, width]` -> the same."""
        area, aspect, *places = torch.rand(4, len(x), device=x.device)
        area = self._min_area + (1.0 - self._min_area) * area
        stretch = torch.exp(self._aspect * (aspect - 0.5))  # the root of the ratio of the sides
        sides = torch.stack([area.sqrt() * stretch, area.sqrt() / stretch]).clamp_(max=1.0)
        centres = (1.0 - sides) * (2.0 * torch.stack(places) - 1.0)
        return resampled(x, sides, centres)


def resampled(x: Tensor, sides: Tensor, centres: Tensor) -> Tensor:
    """Pieces of images at the size of the whole, bilinearly.

    Args:
        x: `[batch, channels, height, width]`.
        sides: width and height of the pieces as shares of the image's, `[2, batch]`.
        centres: column and row of their centres, from -1, the left or upper edge, to 1, `[2, batch]`.
    """
    zero = torch.zeros_like(sides[0])
    rows = [sides[0], zero, centres[0], zero, sides[1], centres[1]]
    maps = torch.stack(rows, dim=1).view(-1, 2, 3)
    grid = F.affine_grid(maps, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)
