"""numpy's npz files: a zip of arrays, of which nothing is unpickled."""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING

from dropnorm.datasets import limits
from dropnorm.datasets.errors import InvalidData

if TYPE_CHECKING:
    from dropnorm.datasets.bundle import Array

_NAMES = ("x", "y", "x_test", "y_test")
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,  # a compression that Python does not know
    RuntimeError,  # a password
    SyntaxError,  # of a header, which is written as a literal of Python
    tokenize.TokenError,
    TypeError,
    ValueError,
)


def read_npz(path: Path) -> Mapping[str, Array]:
    """The arrays `x` and `y`, and `x_test` and `y_test` where there are any, in capitals or not; others are not read.

    Raises:
        InvalidData: it is no such file, unfolds to too much, or an array is missing or there twice.
    """
    place = "its directory"
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(path, archive)
            unfolded = sum(each.file_size for each in members.values())
            if unfolded > limits.MAX_BYTES:
                raise InvalidData(
                    f"{path} unfolds to {unfolded:,} bytes, more than {limits.MAX_BYTES:,}."
                )
            arrays = {}
            for name, member in members.items():
                place = member.filename
                with archive.open(member) as file:
                    _check_header(file, member.file_size)
                with archive.open(member) as file:
                    arrays[name] = _read(file)
            return arrays
    except InvalidData:
        raise
    except OSError as error:
        if error.filename is not None:
            raise
        raise InvalidData(f"{path} is no npz file of plain arrays; {place}: {error}") from error
    except _UNREADABLE as error:
        raise InvalidData(f"{path} is no npz file of plain arrays; {place}: {error}") from error


def _members(path: Path, archive: zipfile.ZipFile) -> Mapping[str, zipfile.ZipInfo]:
    """The members that are wanted, by the names of their arrays in small letters."""
    found: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        name = member.filename.removesuffix(".npy")
        if name.lower() in found:
            raise InvalidData(
                f"{path} has the arrays {found[name.lower()].filename} and {member.filename}; leave one out."
            )
        if name.lower() in _NAMES:
            found[name.lower()] = member
    if not {"x", "y"} <= set(found):
        there = sorted(each.filename.removesuffix(".npy") for each in archive.infolist())
        raise InvalidData(
            f"{path} has the arrays {', '.join(there[:20]) or 'none'}; call them X and y."
        )
    if ("x_test" in found) != ("y_test" in found):
        half, other = ("X", "y") if "x_test" in found else ("y", "X")
        raise InvalidData(f"{path} has {half}_test without {other}_test; give both, or neither.")
    return found


def _check_header(file: IO[bytes], size: int) -> None:
    """Refuse an array that is not as large as the zip says, before memory for it is taken.

    Raises:
        ValueError: what is wrong with it.
    """
    from numpy.lib import format

    version = format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} is none of arrays of numbers and text")
    read = format.read_array_header_1_0 if version == (1, 0) else format.read_array_header_2_0
    shape, _, kind = read(file)
    if kind.hasobject:
        raise ValueError("it holds objects, which are never unpickled; give numbers or text")
    expected = math.prod(shape) * kind.itemsize
    if size - file.tell() != expected or min(shape, default=0) < 0:
        raise ValueError(f"it has {size - file.tell():,} bytes and its header says {expected:,}")


def _read(file: IO[bytes]) -> Array:
    from numpy.lib import format

    array: Array = format.read_array(file, allow_pickle=False)
    file.read(1)  # the end, where the zip's sum is compared
    return array
