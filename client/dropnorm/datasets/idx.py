"""The IDX format of MNIST and its kin (LeCun, Cortes & Burges 1998), gzipped or not."""

from __future__ import annotations

import gzip
import math
import re
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from dropnorm.datasets import limits
from dropnorm.datasets.errors import InvalidData

if TYPE_CHECKING:
    from dropnorm.datasets.bundle import Array

_NAME = re.compile(r"[._-]idx(\d+[._-]?\w*)?(\.gz)?", re.IGNORECASE)
_MAX_DIMENSIONS = 4
_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_PART = 1 << 20


def is_idx(path: Path) -> bool:
    """Whether a file is called as such files are: `x.idx`, `x.idx3-ubyte`, `x-idx3-ubyte`, and each with `.gz`."""
    found = _NAME.search(path.name)
    return found is not None and found.end() == len(path.name)


def read_idx(path: Path) -> Array:
    """An array in the IDX format; no more of the file is unfolded than its header promises.

    Raises:
        InvalidData: it is none; the byte is named.
    """
    import numpy

    content = bytearray()
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            content += file.read(4)
            _check_magic(path, content)
            start = 4 + 4 * content[3]
            content += file.read(start - 4)
            if len(content) < start:
                raise InvalidData(f"{path} ends at byte {len(content)}, within its header.")
            shape = tuple(
                int.from_bytes(content[place : place + 4], "big") for place in range(4, start, 4)
            )
            kind = numpy.dtype(_TYPES[content[2]])
            end = start + math.prod(shape) * kind.itemsize
            if end > limits.MAX_BYTES:
                raise InvalidData(
                    f"{path} unfolds to {end:,} bytes by its header, more than {limits.MAX_BYTES:,}."
                )
            while part := file.read(min(_PART, end + 1 - len(content))):
                content += part
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InvalidData(f"{path} is damaged behind byte {len(content)}: {error}") from error
    if len(content) != end:
        how = "ends at" if len(content) < end else "goes on behind"
        raise InvalidData(
            f"{path} {how} byte {min(len(content), end)}, and its header says {end} bytes."
        )
    values = numpy.frombuffer(content, kind, offset=start).reshape(shape)
    return values.astype(kind.newbyteorder("="), copy=False)


def _check_magic(path: Path, content: bytearray) -> None:
    wrong = next((place for place in range(min(2, len(content))) if content[place]), None)
    if wrong is None and (len(content) < 4 or content[2] not in _TYPES):
        wrong = min(2, len(content))
    if wrong is not None:
        raise InvalidData(f"{path} is no IDX file: byte {wrong} is not what it should be.")
    if content[3] > _MAX_DIMENSIONS:
        raise InvalidData(
            f"{path} has {content[3]} dimensions at byte 3, more than {_MAX_DIMENSIONS}."
        )
