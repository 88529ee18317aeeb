"""The IDX format of MNIST and its kin (LeCun, Cortes & Burges 1998), plain or gzipped.

Big-endian: two zero bytes, a type byte (8: unsigned bytes), the number of dimensions, each
dimension as 32 bits, then the elements in row-major order.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from dropnorm_service.training.data.info import DatasetInfo, PinnedFile
from dropnorm_service.training.errors import BadData

_UNSIGNED_BYTES = 8


@dataclass(frozen=True)
class IdxFiles:
    """Four IDX files: training images and labels, test images and labels."""

    files: tuple[PinnedFile, ...]

    def find(self, folder: Path) -> Sequence[Path]:
        """The four files, each plain (faster to read) or gzipped."""
        found = []
        for file in self.files:
            forms = (folder / file.name.removesuffix(".gz"), folder / file.name)
            found += [path for path in forms if path.is_file()][:1]
        return found if len(found) == len(self.files) else ()

    def parse(self, paths: Sequence[Path], info: DatasetInfo) -> dict[str, torch.Tensor]:
        """Read the four files; every count and label must be what the data set's should be."""
        images, labels, test_images, test_labels = paths
        return {
            "x": _images(images, info.samples, info),
            "y": _labels(labels, info.samples, info),
            "test_x": _images(test_images, info.test_samples, info),
            "test_y": _labels(test_labels, info.test_samples, info),
        }


def read_idx(path: Path, shape: tuple[int, ...]) -> torch.Tensor:
    """Read an IDX file of unsigned bytes: uint8 of the given shape.

    Raises:
        BadData: it is no such file, is cut short, or has another shape; with file and byte.
    """
    magic = bytes((0, 0, _UNSIGNED_BYTES, len(shape)))
    start = len(magic) + 4 * len(shape)
    end = start + math.prod(shape)
    content = _read(path, end + 1)  # a byte too many is told without unpacking a gzip bomb
    if content[:4] != magic:
        begins = content[:4].hex(" ") or "nothing"
        raise bad_byte(
            path, 0, f"it begins with {begins}, an IDX file of this kind with {magic.hex(' ')}"
        )
    if len(content) < start:
        raise bad_byte(path, len(content), f"it ends within its header of {start} bytes")
    for axis, found in enumerate(struct.unpack(f">{len(shape)}I", content[4:start])):
        if found != shape[axis]:
            raise bad_byte(
                path, 4 + 4 * axis, f"it announces {found} along axis {axis}, not {shape[axis]}"
            )
    if len(content) < end:
        raise bad_byte(path, len(content), f"it ends {end - len(content)} bytes too early")
    if len(content) > end:
        raise bad_byte(path, end, "it goes on after its last element")
    return torch.frombuffer(content, dtype=torch.uint8, offset=start).view(shape)


def bad_byte(path: Path, byte: int, problem: str) -> BadData:
    """The error for a file that is wrong from some byte on (of its unpacked content)."""
    return BadData(
        f"{path.name} is broken at byte {byte}: {problem}. Replace the file.", file=path, byte=byte
    )


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """A block that reads a file.

    Raises:
        BadData: the service may not read it.
    """
    try:
        yield
    except PermissionError as error:
        raise BadData(
            f"The service may not read {path.name}. Give its user the right to.", file=path
        ) from error


def _images(path: Path, samples: int, info: DatasetInfo) -> torch.Tensor:
    return read_idx(path, (samples, *info.input_shape[1:])).unsqueeze(1)


def _labels(path: Path, samples: int, info: DatasetInfo) -> torch.Tensor:
    labels = read_idx(path, (samples,))
    wrong = (labels >= info.outputs).nonzero()
    if len(wrong):
        first = int(wrong[0])
        raise bad_byte(
            path,
            8 + first,
            f"label {int(labels[first])} is above {info.outputs - 1}, the last class",
        )
    return labels.to(torch.int64)


def _read(path: Path, limit: int) -> bytearray:
    """The first `limit` bytes, unpacked where the file is gzipped."""
    content = bytearray()
    try:
        with readable(path), gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            while len(content) < limit and (part := file.read(min(1 << 20, limit - len(content)))):
                content += part
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise bad_byte(path, len(content), f"its compression is broken ({error})") from error
    return content
