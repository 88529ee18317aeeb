"""Data sets from files: arrays, tables, images by class, texts. Nothing in them is ever run, and none is unpickled."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dropnorm.datasets.arrays import from_arrays
from dropnorm.datasets.bundle import Bundle
from dropnorm.datasets.errors import InvalidData
from dropnorm.datasets.images import from_folder
from dropnorm.datasets.tables import from_frame, read_csv, read_parquet
from dropnorm.datasets.texts import from_pairs, from_text

if TYPE_CHECKING:
    from dropnorm.datasets.arrays import Task
    from dropnorm.datasets.bundle import Array

Tokens = Literal["characters", "words"]

MAX_BYTES = 16 * 2**30
"""Bytes that a compressed file may unfold to."""

_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    MemoryError,  # a header that promises more values than there are bytes
    NotImplementedError,  # a compression that Python does not know
    OSError,
    RuntimeError,  # a password
    ValueError,
)
_MAX_DIMENSIONS = 4
_IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def from_files(
    paths: Sequence[Path],
    *,
    target: str | None = None,
    task: Task | None = None,
    tokens: Tokens = "characters",
    length: int = 128,
    size: tuple[int, int] | None = None,
) -> Bundle:
    """A data set of files, told by their names.

    | files | become |
    |---|---|
    | `data.npz` | its arrays `X` and `y`, and `X_test` and `y_test` where it has them |
    | `table.csv`, `table.parquet` | a table, see `tables` |
    | `images.idx labels.idx`, gzipped or not, and then those of a test split | images as bytes, and their classes |
    | a folder | images in a subfolder for each class, see `images` |
    | `text.txt` | a text in pieces of `length` tokens |
    | `source.txt target.txt` | pairs of lines |

    Args:
        paths: one of these.
        target: of a table: the column of the target; absent: the last one.
        task: `classification` or `regression`, where the type of the targets does not say it.
        tokens: of a text: what a token is.
        length: of a text: tokens of a piece.
        size: of images: height and width that they are brought to; absent: they must agree.

    Raises:
        InvalidData: a file is not what its name says; the row, line or byte is named.
        FileNotFoundError: there is no such file.
        ImportError: a library is missing; the message says which.
    """
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(2, "No such file or directory", str(path))
    first, *others = paths
    if first.is_dir():
        _alone(paths, "a folder of images")
        return from_folder(first, size=size)
    kind = _kind(first)
    if kind == "npz":
        _alone(paths, "an npz file")
        return _from_npz(first, task)
    if kind in ("csv", "parquet"):
        _alone(paths, "a table")
        frame = read_csv(first) if kind == "csv" else read_parquet(first)
        return from_frame(frame, target=target, task=task)
    if kind == "idx":
        return _from_idx(paths, task)
    if len(others) > 1:
        raise InvalidData("Give one text, or a text of sources and one of targets.")
    if others:
        return from_pairs(first, others[0], tokens=tokens)
    return from_text(first, tokens=tokens, length=length)


def _kind(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if ("idx" in path.name and suffixes[-1:] in ([], [".gz"], [".idx"])) or ".idx" in suffixes:
        return "idx"
    known = {".npz": "npz", ".csv": "csv", ".parquet": "parquet", ".txt": "text"}
    kind = known.get(suffixes[-1]) if suffixes else None
    if kind is None:
        raise InvalidData(
            f"{path} is of no known kind; give .npz, .csv, .parquet, .txt, IDX files (.idx, -ubyte.gz), or a folder "
            "of images by class."
        )
    return kind


def _alone(paths: Sequence[Path], what: str) -> None:
    if len(paths) > 1:
        raise InvalidData(f"{what} is a whole data set; give nothing beside it.".capitalize())


def _from_npz(path: Path, task: Task | None) -> Bundle:
    import numpy

    name, found = "its directory", {}
    try:
        with zipfile.ZipFile(path) as archive:
            unfolded = sum(each.file_size for each in archive.infolist())
        if unfolded > MAX_BYTES:
            raise InvalidData(f"{path} unfolds to {unfolded:,} bytes, more than {MAX_BYTES:,}.")
        with numpy.load(path, allow_pickle=False) as arrays:
            for name in arrays.files:
                found[name.lower()] = arrays[name]
    except InvalidData:
        raise
    except _UNREADABLE as error:
        raise InvalidData(f"{path} is no npz file of plain arrays; {name}: {error}") from error
    if not {"x", "y"} <= set(found):
        raise InvalidData(
            f"{path} has the arrays {', '.join(sorted(found)) or 'none'}; call them X and y."
        )
    test = (found["x_test"], found["y_test"]) if {"x_test", "y_test"} <= set(found) else None
    return from_arrays(found["x"], found["y"], test=test, task=task)


def _from_idx(paths: Sequence[Path], task: Task | None) -> Bundle:
    if len(paths) not in (2, 4):
        raise InvalidData(
            "Give IDX files as images and labels, and then those of a test split if there is one."
        )
    arrays = [read_idx(path) for path in paths]
    test = (arrays[2], arrays[3]) if len(arrays) == 4 else None
    return from_arrays(arrays[0], arrays[1], test=test, task=task)


def read_idx(path: Path) -> Array:
    """An array in the IDX format (LeCun), gzipped or not.

    Raises:
        InvalidData: it is none; the byte is named.
    """
    import numpy

    data = _unfolded(path)
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _IDX_TYPES:
        raise InvalidData(
            f"{path} is no IDX file: byte {_first_wrong(data)} is not what it should be."
        )
    if data[3] > _MAX_DIMENSIONS:
        raise InvalidData(
            f"{path} has {data[3]} dimensions at byte 3, more than {_MAX_DIMENSIONS}."
        )
    start = 4 + 4 * data[3]
    if len(data) < start:
        raise InvalidData(f"{path} ends at byte {len(data)}, within its header.")
    shape = tuple(int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(data[3]))
    kind = numpy.dtype(_IDX_TYPES[data[2]])
    values: Any = 1
    for side in shape:
        values *= side
    expected = start + values * kind.itemsize
    if len(data) != expected:
        raise InvalidData(f"{path} has {len(data)} bytes and its header says {expected}.")
    return numpy.frombuffer(data, kind, offset=start).reshape(shape).astype(kind.newbyteorder("="))


def _first_wrong(data: bytes) -> int:
    return next((index for index in range(min(2, len(data))) if data[index]), min(2, len(data)))


def _unfolded(path: Path) -> bytes:
    if path.suffix.lower() != ".gz":
        return path.read_bytes()
    try:
        with gzip.open(path) as file:
            data = file.read(MAX_BYTES + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise InvalidData(f"{path} is damaged: {error}") from error
    if len(data) > MAX_BYTES:
        raise InvalidData(f"{path} unfolds to more than {MAX_BYTES:,} bytes.")
    return data
