"""Images in a folder: a subfolder for each class, named by it.

| what | is taken |
|---|---|
| files | BMP, GIF, JPEG, PNG and WebP, in subfolders of a class's too; any other file there is refused |
| what is hidden (`.name`) | not at all |
| `train` and `test`, with the classes' folders in them | the data set and a test split of its own |
| images of several pictures | the first one |
| transparency | before white |
| EXIF | turned the way it says |
| colours | grey where every image is, a palette of greys too; else red, green and blue |
| more than 8 bits per value | refused |
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dropnorm.datasets import limits
from dropnorm.datasets.arrays import from_arrays
from dropnorm.datasets.bundle import Bundle
from dropnorm.datasets.errors import InvalidData, needs

if TYPE_CHECKING:
    from dropnorm.datasets.bundle import Array

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "WEBP")
"""What Pillow may take a file for, whatever its name; some of its other formats run programs."""
MAX_PIXELS = 2**24
"""Pixels of an image as it is used. One that is brought to another size may have more before: as many as Pillow reads
without a warning, 89,478,485."""
_SPLITS = {"train", "test", "val", "valid", "validation"}

Files = Sequence[tuple[Path, int]]  # an image and the number of its class


def from_folder(folder: Path, *, size: tuple[int, int] | None = None) -> Bundle:
    """A data set of the images below a folder, classes in the order of their names.

    A link that leads out of the folder is refused.

    Args:
        folder: has a subfolder for each class, or `train` and `test` that have.
        size: height and width that images are brought to, at most 16,777,216 pixels; absent: all must have the same.

    Raises:
        InvalidData: a file is no image, too large, or of another size than the first.
        ImportError: Pillow is not installed.
    """
    import numpy

    if size is not None and not 0 < size[0] * size[1] <= MAX_PIXELS:
        raise InvalidData(
            f"A size of {size[0]} x {size[1]} is not 1 to {MAX_PIXELS:,} pixels; give a smaller one."
        )
    parts = _splits(folder)
    names = [path.name for path in _subfolders(parts[0])]
    files = [_files(part, names, folder) for part in parts]
    pixels = _stacked([file for part in files for file in part], size)
    labels = numpy.array([number for part in files for _, number in part])
    end = len(files[0])
    test = (pixels[end:], labels[end:]) if len(parts) > 1 else None
    return from_arrays(
        pixels[:end], labels[:end], test=test, task="classification", class_names=names
    )


def _subfolders(folder: Path) -> Sequence[Path]:
    return sorted(
        path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )


def _splits(folder: Path) -> Sequence[Path]:
    """The folders that have a subfolder for each class: this one, or its `train` and `test`."""
    by_name = {path.name.lower(): path for path in _subfolders(folder)}
    if "train" not in by_name or not _SPLITS.issuperset(by_name) or len(by_name) < 2:
        return (folder,)
    if not all(map(_subfolders, by_name.values())):  # classes that happen to be called so
        return (folder,)
    if set(by_name) != {"train", "test"}:
        raise InvalidData(
            f"{folder} has the splits {', '.join(sorted(by_name))}; give train and test alone, a job splits its "
            "validation off train."
        )
    return by_name["train"], by_name["test"]


def _files(folder: Path, names: Sequence[str], root: Path) -> Files:
    """The images in the folders of the classes."""
    for path in folder.iterdir():
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and not path.is_dir():
            raise InvalidData(f"{path} is in no folder of a class; put it into one.")
    found = []
    for each in _subfolders(folder):
        if each.name not in names:
            raise InvalidData(f"{each} is of a class that train has not; give both the same.")
        images = _images(each, root)
        if not images:
            raise InvalidData(
                f"Class {each.name!r} in {folder} has no images; remove its folder, or fill it."
            )
        found += [(path, names.index(each.name)) for path in images]
    if not found:
        raise InvalidData(
            f"{folder} has no images in subfolders; give a subfolder for each class, with {', '.join(SUFFIXES)} files."
        )
    return found


def _images(folder: Path, root: Path) -> Sequence[Path]:
    found, inside = [], root.resolve()
    for path in sorted(folder.rglob("*")):
        if path.is_dir() or any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        if path.suffix.lower() not in SUFFIXES:
            raise InvalidData(
                f"{path} is no image by its name; give {', '.join(SUFFIXES)} files alone."
            )
        if not path.resolve().is_relative_to(inside):
            raise InvalidData(f"{path} is a link out of {root}; copy the image there.")
        found.append(path)
    return found


def _stacked(files: Files, size: tuple[int, int] | None) -> Array:
    """All images: uint8 `[images, channels, height, width]`."""
    import numpy

    if size is not None:
        _check_room(len(files), (1, *size))
    stacked = numpy.empty((0, 0, 0, 0), numpy.uint8)
    for number, (path, _) in enumerate(files):
        image = _read(path, size)
        if not number:
            _check_room(len(files), image.shape)
            stacked = numpy.empty((len(files), *image.shape), numpy.uint8)
        if image.shape[1:] != stacked.shape[2:]:
            raise InvalidData(
                f"{path} has {_sides(image)} pixels and {files[0][0]} {_sides(stacked)}; give a size."
            )
        if len(image) > stacked.shape[1]:  # the first one in colour
            _check_room(len(files), image.shape)
            stacked = numpy.repeat(stacked, 3, axis=1)
        stacked[number] = image  # a grey one among those in colour is the same in each
    return stacked


def _check_room(images: int, shape: tuple[int, ...]) -> None:
    room = images * shape[0] * shape[1] * shape[2]
    if room > limits.MAX_BYTES:
        raise InvalidData(
            f"{images:,} images of {' x '.join(map(str, shape))} bytes unfold to {room:,}, more than "
            f"{limits.MAX_BYTES:,}; give a smaller size, or fewer images."
        )


def _read(path: Path, size: tuple[int, int] | None) -> Array:
    """One image: uint8 `[channels, height, width]`."""
    import numpy

    library = _pillow()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # of an image that unfolds to far more than its file
            warnings.simplefilter("error", library.DecompressionBombWarning)
            with library.open(path, formats=FORMATS) as image:
                _check_image(path, image, size)
                shown = _shown(image)
                if size is not None:
                    shown = shown.resize((size[1], size[0]), library.Resampling.BILINEAR)
                pixels = numpy.asarray(shown)
    except (InvalidData, MemoryError):
        raise
    except Exception as error:  # Pillow has one of its own for each format's ways to be broken
        raise InvalidData(f"{path} is no image that can be read: {error}") from error
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _check_image(path: Path, image: Any, size: tuple[int, int] | None) -> None:
    pixels = image.width * image.height
    if size is None and pixels > MAX_PIXELS:
        raise InvalidData(
            f"{path} has {pixels:,} pixels, more than {MAX_PIXELS:,}; give a size, or make it smaller."
        )
    if image.format == "PNG":
        with path.open("rb") as file:
            bits = file.read(25)[24]  # Pillow would cut them off
        if bits > 8:
            raise InvalidData(
                f"{path} has more than 8 bits per value ({bits}); save it with 8, or upload arrays."
            )


def _shown(image: Any) -> Any:
    """An image as people see it, grey or in colour."""
    from PIL import Image, ImageOps

    grey = _is_grey(image)
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("L" if grey else "RGB")


def _is_grey(image: Any) -> bool:
    if image.mode != "P":
        return image.mode in ("1", "L", "LA")
    palette = image.getpalette("RGB")
    return bool(palette[0::3] == palette[1::3] == palette[2::3])


def _sides(pixels: Array) -> str:
    return f"{pixels.shape[-2]} x {pixels.shape[-1]}"


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise needs("Pillow", "reading images") from error
    return Image
