"""Images in a folder: a subfolder for each class, named by it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dropnorm.datasets.arrays import from_arrays
from dropnorm.datasets.bundle import Bundle
from dropnorm.datasets.errors import InvalidData, needs

if TYPE_CHECKING:
    from dropnorm.datasets.bundle import Array

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
MAX_BYTES = 16 * 2**30
"""Bytes that all images may unfold to."""
MAX_PIXELS = 2**24
"""Pixels of one image, before it is brought to another size."""


def from_folder(folder: Path, *, size: tuple[int, int] | None = None) -> Bundle:
    """A data set of the images below a folder, classes in the order of their names.

    Images are bytes, grey where all are and red, green and blue otherwise. A link that leads out of the folder is
    refused.

    Args:
        folder: has a subfolder for each class.
        size: height and width that images are brought to; absent: all must have the same.

    Raises:
        InvalidData: a file is no image, too large, or of another size than the first.
        ImportError: Pillow is not installed.
    """
    import numpy

    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    files = [(path, index) for index, each in enumerate(classes) for path in _images(each, folder)]
    if not files:
        raise InvalidData(
            f"{folder} has no images in subfolders; give a subfolder for each class, with {', '.join(SUFFIXES)} files."
        )
    empty = [each.name for index, each in enumerate(classes) if index not in {i for _, i in files}]
    if empty:
        raise InvalidData(
            f"Class {empty[0]!r} in {folder} has no images; remove its folder, or fill it."
        )
    pixels = list(_all(files, size))
    odd = next((n for n, each in enumerate(pixels) if each.shape[:2] != pixels[0].shape[:2]), None)
    if odd is not None:
        raise InvalidData(
            f"{files[odd][0]} has {_sides(pixels[odd])} pixels and {files[0][0]} {_sides(pixels[0])}; give a size."
        )
    if any(each.ndim == 3 for each in pixels):
        pixels = [
            each if each.ndim == 3 else numpy.repeat(each[:, :, None], 3, 2) for each in pixels
        ]
        stacked = numpy.stack(pixels).transpose(0, 3, 1, 2)
    else:
        stacked = numpy.stack(pixels)[:, None]
    labels = numpy.array([index for _, index in files])
    names = [each.name for each in classes]
    return from_arrays(stacked, labels, task="classification", class_names=names)


def _images(folder: Path, root: Path) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    inside = root.resolve()
    for path in found:
        if not path.resolve().is_relative_to(inside):
            raise InvalidData(f"{path} is a link out of {root}; copy the image there.")
    return found


def _all(files: Sequence[tuple[Path, int]], size: tuple[int, int] | None) -> Iterator[Array]:
    unfolded = 0
    for path, _ in files:
        image = _read(path, size)
        unfolded += image.nbytes
        if unfolded > MAX_BYTES:
            raise InvalidData(
                f"The images up to {path} unfold to more than {MAX_BYTES:,} bytes; give a smaller size, or "
                "fewer images."
            )
        yield image


def _read(path: Path, size: tuple[int, int] | None) -> Array:
    """`[height, width]`, or `[height, width, 3]` in colour."""
    import numpy

    image_library = _pillow()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of an image that unfolds to far more than its file
            with image_library.open(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise InvalidData(
                        f"{path} has {image.width * image.height:,} pixels, more than {MAX_PIXELS:,}; make it smaller."
                    )
                if image.mode.startswith(("I", "F")):
                    raise InvalidData(
                        f"{path} has more than 8 bits per value ({image.mode}); save it with 8, or upload arrays."
                    )
                shown = image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
                if size is not None:
                    shown = shown.resize((size[1], size[0]), image_library.Resampling.BILINEAR)
                return numpy.asarray(shown)
    except InvalidData:
        raise
    except (
        Exception
    ) as error:  # Pillow has an exception of its own for each format's ways to be broken
        raise InvalidData(f"{path} is no image that can be read: {error}") from error


def _sides(pixels: Array) -> str:
    return f"{pixels.shape[0]} x {pixels.shape[1]}"


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise needs("Pillow", "reading images") from error
    return Image
