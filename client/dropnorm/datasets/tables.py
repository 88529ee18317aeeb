"""Tables: columns of any kind become features by stated rules.

| column | becomes |
|---|---|
| numbers | one feature; a missing value is the column's median, and a feature `<name> is missing` says where |
| truth values | one feature, 0 or 1 |
| text, categories | a feature `<name>=<category>` for each category, in their order; a missing value is none |

Medians and categories are those of the whole table. The target's rows must be complete. Times are refused: say what of
them matters (the hour, the age) in a column of numbers.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dropnorm.datasets.arrays import from_arrays
from dropnorm.datasets.bundle import Bundle
from dropnorm.datasets.errors import InvalidData, needs

if TYPE_CHECKING:
    import pandas

    from dropnorm.datasets.arrays import Task
    from dropnorm.datasets.bundle import Array

MAX_CATEGORIES = 1000
"""Categories of one column; more of them are rather names or keys, of which nothing is learned."""


def from_frame(
    frame: pandas.DataFrame, y: Any = None, *, target: str | None = None, task: Task | None = None
) -> Bundle:
    """A data set of a pandas frame.

    Args:
        frame: a row per sample.
        y: targets; absent: the column `target`.
        target: name of the target's column, by default the last one.
        task: `classification` or `regression`, where the type of the targets does not say it.

    Raises:
        InvalidData: a column cannot be used; it is named, and the row where there is one.
    """
    if not len(frame) or not len(frame.columns):
        raise InvalidData("The table is empty.")
    if y is None:
        name = frame.columns[-1] if target is None else target
        if name not in frame.columns:
            known = ", ".join(map(str, frame.columns[:20]))
            raise InvalidData(f"The table has no column {name!r} for the target; it has {known}.")
        y, frame = frame[name], frame.drop(columns=[name])
    names, columns = features(frame)
    return from_arrays(columns, _target(y), task=task, feature_names=names)


def features(frame: pandas.DataFrame) -> tuple[Sequence[str], Array]:
    """Names and values of the features of a table: float32 `[rows, features]`.

    Raises:
        InvalidData: a column cannot be used.
    """
    import numpy

    found: dict[str, Array] = {}
    for column in frame.columns:
        for name, values in _column(str(column), frame[column]).items():
            if name in found:
                raise InvalidData(f"Two columns come to a feature {name!r}; rename one.")
            found[name] = values
    if not found:
        raise InvalidData("No column but the target is left to learn from.")
    return list(found), numpy.column_stack([each.astype(numpy.float32) for each in found.values()])


def _column(name: str, values: pandas.Series[Any]) -> dict[str, Array]:
    from pandas.api import types

    if types.is_bool_dtype(values.dtype) and not values.isna().any():
        return {name: values.to_numpy(bool)}
    if types.is_numeric_dtype(values.dtype) and not types.is_complex_dtype(values.dtype):
        return _numbers(name, values)
    if types.is_datetime64_any_dtype(values.dtype) or types.is_timedelta64_dtype(values.dtype):
        raise InvalidData(
            f"Column {name!r} holds times; say what matters of them in a column of numbers."
        )
    return _categories(name, values)


def _numbers(name: str, values: pandas.Series[Any]) -> dict[str, Array]:
    import numpy

    numbers = numpy.asarray(values.to_numpy(dtype=float, na_value=numpy.nan), dtype=float)
    missing = numpy.isnan(numbers)
    if numpy.isinf(numbers).any():
        row = int(numpy.argmax(numpy.isinf(numbers)))
        raise InvalidData(
            f"Column {name!r}, row {row} is infinite; give a finite number, or leave it empty."
        )
    if not missing.any():
        return {name: numbers}
    if missing.all():
        raise InvalidData(f"Column {name!r} has no value at all; leave it out.")
    filled = numpy.where(missing, numpy.nanmedian(numbers), numbers)
    return {name: filled, f"{name} is missing": missing}


def _categories(name: str, values: pandas.Series[Any]) -> dict[str, Array]:
    missing = values.isna().to_numpy()
    texts = values.astype(str).to_numpy()
    categories = sorted(set(texts[~missing]))
    if len(categories) > MAX_CATEGORIES:
        raise InvalidData(
            f"Column {name!r} has {len(categories):,} categories, more than {MAX_CATEGORIES:,}; leave it out, or put "
            "them into fewer groups."
        )
    if not categories:
        raise InvalidData(f"Column {name!r} has no value at all; leave it out.")
    return {f"{name}={each}": (texts == each) & ~missing for each in categories}


def _target(y: Any) -> Any:
    if not hasattr(y, "isna"):
        return y
    missing = y.isna().to_numpy().reshape(len(y), -1).any(axis=1)
    if missing.any():
        raise InvalidData(
            f"The target is missing in row {int(missing.argmax())}; drop such rows, or fill them."
        )
    if str(y.dtype) in ("object", "string", "str", "category"):
        return y.astype(str).to_numpy(dtype=str)
    return y.to_numpy()


def read_csv(path: Any) -> pandas.DataFrame:
    """A CSV file with a line of names first.

    Raises:
        InvalidData: it is none; the line is named.
    """
    pandas = _pandas()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "error", pandas.errors.ParserWarning
            )  # of lines that are too long
            return pandas.read_csv(path, encoding="utf-8", index_col=False)  # type: ignore[no-any-return]
    except (
        pandas.errors.ParserError,
        pandas.errors.ParserWarning,
        pandas.errors.EmptyDataError,
    ) as error:
        raise InvalidData(f"{path} is no table: {str(error).strip()}.") from error
    except UnicodeDecodeError as error:
        raise InvalidData(
            f"{path} is not UTF-8 at byte {error.start}; save it as UTF-8."
        ) from error


def read_parquet(path: Any) -> pandas.DataFrame:
    """A Parquet file.

    Raises:
        InvalidData: it is none.
    """
    pandas = _pandas()
    try:
        import pyarrow
    except ImportError as error:
        raise needs("pyarrow", "reading Parquet") from error
    try:
        return pandas.read_parquet(path, engine="pyarrow")  # type: ignore[no-any-return]
    except (pyarrow.ArrowException, ValueError) as error:
        raise InvalidData(f"{path} is no Parquet file: {str(error).splitlines()[0]}.") from error


def _pandas() -> Any:
    try:
        import pandas
    except ImportError as error:
        raise needs("pandas", "reading tables") from error
    return pandas
