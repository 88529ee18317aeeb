"""Data sets from files: arrays, tables, images by class, texts. Nothing in them is ever run, and none is unpickled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dropnorm.datasets.arrays import from_arrays
from dropnorm.datasets.bundle import Bundle
from dropnorm.datasets.errors import InvalidData
from dropnorm.datasets.idx import is_idx, read_idx
from dropnorm.datasets.images import from_folder
from dropnorm.datasets.npz import read_npz
from dropnorm.datasets.table_files import at_line, read_csv, read_parquet
from dropnorm.datasets.tables import from_frame, from_text_column
from dropnorm.datasets.texts import Tokens, from_pairs, from_text
from dropnorm.datasets.values import numpy_for

if TYPE_CHECKING:
    import pandas

    from dropnorm.datasets.arrays import Task


def from_files(
    paths: Sequence[Path],
    *,
    target: str | None = None,
    text: str | None = None,
    task: Task | None = None,
    tokens: Tokens = "characters",
    length: int = 128,
    size: tuple[int, int] | None = None,
) -> Bundle:
    """A data set of files, told by their names.

    | files | become |
    |---|---|
    | `data.npz` | its arrays `X` and `y`, and `X_test` and `y_test` where it has them |
    | `table.csv`, `table.parquet` | a table, see `table_files` and `tables`; with `text` labelled texts |
    | `images.idx labels.idx`, gzipped or not, and then those of a test split | images as bytes, and their classes |
    | a folder | images in a subfolder for each class, see `images` |
    | `text.txt` | a text in pieces of `length` tokens |
    | `source.txt target.txt` | pairs of lines |

    Args:
        paths: one of these.
        target: of a table: the column of the target; absent: the last one.
        text: of a table: the column of the texts that are the samples, whose other columns are not looked at; absent:
            all columns but the target are features.
        task: `classification` or `regression`, where the type of the targets does not say it.
        tokens: of a text: what a token is.
        length: of a text: tokens of a piece, of a table's texts tokens at most.
        size: of images: height and width that they are brought to; absent: they must agree.

    Raises:
        InvalidData: a file is not what its name says, or takes more memory than there is; the row, line or byte is
            named.
        FileNotFoundError: there is no such file.
        ImportError: a library is missing; the message says which.
    """
    numpy_for("reading data")
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(2, "No such file or directory", str(path))
    kind = _kind(paths[0])
    if text is not None and kind not in ("csv", "parquet"):
        raise InvalidData("text names a column of a table, and this is none; leave it out.")
    try:
        if kind == "folder":
            _alone(paths, "A folder of images")
            return from_folder(paths[0], size=size)
        if kind == "text":
            return _from_texts(paths, tokens, length)
        if kind == "csv" or kind == "parquet":
            _alone(paths, "A table")
            make = partial(from_frame, target=target, task=task)
            if text is not None:
                make = partial(
                    from_text_column,
                    text=text,
                    target=target,
                    task=task,
                    tokens=tokens,
                    length=length,
                )
            return _from_table(kind, paths[0], make)
        return _from_arrays(kind, paths, task)
    except MemoryError as error:
        raise InvalidData(
            f"{paths[0]} takes more memory than there is; give less data, or a machine with more."
        ) from error


def _kind(path: Path) -> Literal["folder", "idx", "npz", "csv", "parquet", "text"]:
    if path.is_dir():
        return "folder"
    if is_idx(path):
        return "idx"
    match path.suffix.lower():
        case ".npz":
            return "npz"
        case ".csv":
            return "csv"
        case ".parquet":
            return "parquet"
        case ".txt":
            return "text"
    raise InvalidData(
        f"{path} is of no known kind; give .npz, .csv, .parquet, .txt, IDX files (.idx, .idx3-ubyte, -idx3-ubyte, each "
        "with .gz or not), or a folder of images by class."
    )


def _alone(paths: Sequence[Path], what: str) -> None:
    if len(paths) > 1:
        raise InvalidData(f"{what} is a whole data set; give nothing beside it.")


def _from_texts(paths: Sequence[Path], tokens: Tokens, length: int) -> Bundle:
    if len(paths) > 2:
        raise InvalidData("Give one text, or a text of sources and one of targets.")
    if len(paths) == 2:
        return from_pairs(paths[0], paths[1], tokens=tokens)
    return from_text(paths[0], tokens=tokens, length=length)


def _from_table(
    kind: Literal["csv", "parquet"], path: Path, make: Callable[[pandas.DataFrame], Bundle]
) -> Bundle:
    frame = read_csv(path) if kind == "csv" else read_parquet(path)
    try:
        return make(frame)
    except InvalidData as error:
        raise at_line(path, error) if kind == "csv" else InvalidData(f"{path}: {error}") from error


def _from_arrays(kind: Literal["idx", "npz"], paths: Sequence[Path], task: Task | None) -> Bundle:
    if kind == "idx":
        return _from_idx(paths, task)
    _alone(paths, "An npz file")
    return _from_npz(paths[0], task)


def _from_npz(path: Path, task: Task | None) -> Bundle:
    arrays = read_npz(path)
    test = (arrays["x_test"], arrays["y_test"]) if "x_test" in arrays else None
    try:
        return from_arrays(arrays["x"], arrays["y"], test=test, task=task)
    except InvalidData as error:
        raise InvalidData(f"{path}: {error}") from error


def _from_idx(paths: Sequence[Path], task: Task | None) -> Bundle:
    if len(paths) not in (2, 4):
        raise InvalidData(
            "Give IDX files as images and labels, and then those of a test split if there is one."
        )
    arrays = [read_idx(path) for path in paths]
    test = (arrays[2], arrays[3]) if len(arrays) == 4 else None
    return from_arrays(arrays[0], arrays[1], test=test, task=task)
