"""Tables from files: CSV and Parquet."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dropnorm.datasets import limits
from dropnorm.datasets.errors import InvalidData, InvalidRow, needs
from dropnorm.datasets.tables import check_names
from dropnorm.datasets.texts import not_utf8

if TYPE_CHECKING:
    import pandas

    from dropnorm.datasets.columns import Column

MISSING = ("NA", "NaN", "nan", "null", "N/A")
"""What stands for a missing value in a CSV file's column of numbers, as an empty field does in every column."""
MAX_VALUES = limits.MAX_BYTES // 8
"""Values of a Parquet file, rows times columns, each of eight bytes in memory."""


def read_csv(path: Path) -> pandas.DataFrame:
    """A CSV file in UTF-8 with a line of names first.

    An empty field is missing, and so are the fields that a short line lacks; `NA`, `NaN`, `nan`, `null` and `N/A` are
    missing in a column of numbers, and text like any other elsewhere.

    Raises:
        InvalidData: it is none; the line is named.
    """
    pandas = _pandas()
    try:
        names = next(_records(path), (0, ()))[1]
        if not names:
            raise InvalidData(f"{path} is no table: it is empty; give a line of names first.")
        check_names(str(path), names)
        with warnings.catch_warnings():
            warnings.simplefilter("error", pandas.errors.ParserWarning)  # of lines too long
            frame = pandas.read_csv(
                path,
                encoding="utf-8",
                index_col=False,
                low_memory=False,
                keep_default_na=False,
                na_values=[""],
                dtype_backend="numpy_nullable",  # whole numbers stay whole where one is missing
            )
    except (pandas.errors.ParserError, pandas.errors.ParserWarning, csv.Error) as error:
        raise InvalidData(f"{path} is no table: {_problem(path, error)}") from error
    except UnicodeDecodeError as error:
        raise not_utf8(path) from error
    for name in frame.columns:
        if pandas.api.types.is_string_dtype(frame[name].dtype):
            frame[name] = _with_gaps(frame[name])
    return frame  # type: ignore[no-any-return]


def at_line(path: Path, error: InvalidData) -> InvalidData:
    """What is wrong with a CSV file's table, with the file, and its line instead of the table's row."""
    if not isinstance(error, InvalidRow):
        return InvalidData(f"{path}: {error}")
    records = enumerate(_records(path), start=-1)  # the names are none of the rows
    line = next((line for row, (line, _) in records if row == error.row), None)
    place = f"row {error.row}" if line is None else f"line {line}"
    return InvalidData(f"{path}: {error.at(place)}")


def _records(path: Path) -> Iterator[tuple[int, Sequence[str]]]:
    """The number of the line at which each record begins, and its fields; empty lines are none."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader, line = csv.reader(file), 1
        for fields in reader:
            if len(fields) > 1 or (fields and fields[0].strip()):
                yield line, fields
            line = reader.line_num + 1


def _problem(path: Path, error: Exception) -> str:
    """Why a file is no table, and in which line."""
    line, width = 0, 0
    try:
        for line, fields in _records(path):
            width = width or len(fields)
            if len(fields) > width:
                return f"line {line} has {len(fields)} fields and the names are {width}; mend it."
    except csv.Error as other:
        return f"a field after line {line} cannot be read ({other}); mend it."
    if "EOF inside string" in str(error):
        return f"a quotation mark in line {line} is never closed; mend it."
    return f"{str(error).strip()}."


def _with_gaps(values: Column) -> Column:
    """A column of text; if it is one of numbers but for what stands for missing values, that."""
    import pandas

    marked = values.isin(MISSING).to_numpy(dtype=bool)
    others = values[~marked].dropna()
    if not marked.any() or not len(others):
        return values
    numbers = pandas.to_numeric(others, errors="coerce").notna()
    if numbers.mean() <= 0.5:
        return values
    gaps = values.mask(marked)
    return pandas.to_numeric(gaps, dtype_backend="numpy_nullable") if numbers.all() else gaps


def read_parquet(path: Path) -> pandas.DataFrame:
    """A Parquet file of columns that are not nested.

    Raises:
        InvalidData: it is none, or unfolds to too much.
    """
    _pandas()
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise needs("pyarrow", "reading Parquet") from error
    try:
        with parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
        check_names(str(path), schema.names)
        _check_flat(path, schema)
        _check_size(path, file.metadata)
        return _read_flat(path, schema)
    except InvalidData:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise InvalidData(f"{path} is no Parquet file: {said}.") from error


def _check_flat(path: Path, schema: Any) -> None:
    from pyarrow import types

    for field in schema:
        if types.is_nested(field.type) or types.is_union(field.type):
            raise InvalidData(
                f"{path}: column {field.name!r} holds {field.type}; give a column for each of its values, or leave it "
                "out."
            )


def _check_size(path: Path, facts: Any) -> None:
    """Refuse what its metadata says to be too large, before any of it is read."""
    rows, columns = facts.num_rows, facts.num_columns
    if rows * columns > MAX_VALUES:  # a page of one value may stand for all
        raise InvalidData(
            f"{path} has {rows:,} rows of {columns:,} columns, more than {MAX_VALUES:,} values."
        )
    unfolded = 0
    for group in map(facts.row_group, range(facts.num_row_groups)):
        for chunk in map(group.column, range(group.num_columns)):
            unfolded += chunk.total_uncompressed_size
            if chunk.num_values != group.num_rows:
                raise InvalidData(
                    f"{path} is damaged: column {chunk.path_in_schema!r} has {chunk.num_values:,} values in "
                    f"{group.num_rows:,} rows."
                )
    if unfolded > limits.MAX_BYTES:
        raise InvalidData(f"{path} unfolds to {unfolded:,} bytes, more than {limits.MAX_BYTES:,}.")


def _read_flat(path: Path, schema: Any) -> pandas.DataFrame:
    """The table; text is read as its dictionaries first, of which a small file's may stand for very much."""
    import pyarrow
    from pyarrow import compute, parquet, types

    text = (types.is_string, types.is_large_string, types.is_string_view)
    binary = (types.is_binary, types.is_large_binary, types.is_binary_view)
    plain = {
        field.name: pyarrow.large_string()
        if any(is_one(field.type) for is_one in text)
        else pyarrow.large_binary()
        for field in schema
        if any(is_one(field.type) for is_one in text + binary)
    }
    table = parquet.read_table(path, read_dictionary=list(plain))
    for name, kind in plain.items():
        column = table.column(name)
        lengths = (compute.binary_length(each.dictionary) for each in column.chunks)
        longest = max((compute.max(each).as_py() or 0 for each in lengths), default=0)
        if longest * table.num_rows > limits.MAX_BYTES:
            raise InvalidData(
                f"{path}: column {name!r} has a text of {longest:,} bytes and {table.num_rows:,} rows, which may "
                f"unfold to more than {limits.MAX_BYTES:,} bytes; shorten it."
            )
        table = table.set_column(schema.get_field_index(name), name, column.cast(kind))
    return table.to_pandas()  # type: ignore[no-any-return]


def _pandas() -> Any:
    try:
        import pandas
    except ImportError as error:
        raise needs("pandas", "reading tables") from error
    return pandas
