"""Tables: columns of any kind become features by stated rules.

| column | becomes |
|---|---|
| numbers, truth values | a feature; a missing value is the column's median, and a feature `<name> is missing` says so |
| text, categories | a feature `<name>=<category>` for each category, in their order; a missing or new value is none |

Medians, categories and which columns miss values are those of the table without its test split, where it has one of its
own. The target's rows must be complete. Times are refused: say what of them matters (the hour, the age) in a column of
numbers.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
MAX_VALUES = 2**32
"""Values of a compressed table: rows times columns."""


def from_frame(
    frame: pandas.DataFrame,
    y: Any = None,
    *,
    target: str | None = None,
    test: tuple[Any, Any] | None = None,
    task: Task | None = None,
    class_names: Sequence[str] | None = None,
) -> Bundle:
    """A data set of a pandas frame.

    Args:
        frame: a row per sample.
        y: targets; absent: the column `target`.
        target: name of the target's column, by default the last one.
        test: a frame with the same columns and targets, a test split of its own; targets None: the column `target`.
        task: `classification` or `regression`, where the type of the targets does not say it.
        class_names: names of the classes 0, 1, ... where the targets are their numbers.

    Raises:
        InvalidData: a column cannot be used; it is named, and the row where there is one.
    """
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise InvalidData(f"The table has two columns {twice[0]!r}; rename one.")
    if y is None and target is None and len(frame.columns):
        target = frame.columns[-1]
    samples, targets = _parted("The table", frame, y, target)
    encoding = Encoding(samples)
    tests = None
    if test is not None:
        test_samples, test_targets = _parted("The test table", *test, target)
        tests = encoding.encode(test_samples), test_targets
    return from_arrays(
        encoding.encode(samples),
        targets,
        test=tests,
        task=task,
        class_names=class_names,
        feature_names=encoding.names,
    )


def _parted(what: str, frame: Any, y: Any, target: str | None) -> tuple[pandas.DataFrame, Any]:
    """The columns to learn from, and the targets."""
    if not hasattr(frame, "columns"):
        raise InvalidData(f"{what} is no pandas frame as the other is; give one.")
    if not len(frame) or not len(frame.columns):
        raise InvalidData(f"{what} is empty.")
    if y is None:
        if target not in frame.columns:
            known = ", ".join(map(str, frame.columns[:20]))
            raise InvalidData(f"{what} has no column {target!r} for the target; it has {known}.")
        y, frame = frame[target], frame.drop(columns=[target])
    if not len(frame.columns):
        raise InvalidData("No column but the target is left to learn from.")
    return frame, _target(y)


class Encoding:
    """How the columns of a table become features, learned from one table.

    Args:
        frame: the table.

    Raises:
        InvalidData: a column cannot be used.
    """

    def __init__(self, frame: pandas.DataFrame) -> None:
        self._rules: Mapping[str, _Numbers | _Categories] = {
            column: _rule(str(column), frame[column]) for column in frame.columns
        }
        self.names = tuple(name for rule in self._rules.values() for name in rule.names)
        name, count = Counter(self.names).most_common(1)[0]
        if count > 1:
            raise InvalidData(f"Two columns come to a feature {name!r}; rename one.")

    def encode(self, frame: pandas.DataFrame) -> Array:
        """The features of a table with the same columns: float32 `[rows, features]`.

        Raises:
            InvalidData: a column is missing, unknown or of another kind.
        """
        import numpy

        odd = set(frame.columns) ^ set(self._rules)
        if odd:
            raise InvalidData(
                f"Column {min(map(str, odd))!r} is in one of the table and its test table only; give both the same."
            )
        columns = [
            values for column, rule in self._rules.items() for values in rule.encode(frame[column])
        ]
        return numpy.column_stack([each.astype(numpy.float32) for each in columns])


def _rule(name: str, values: pandas.Series[Any]) -> _Numbers | _Categories:
    import numpy
    from pandas.api import types

    if types.is_datetime64_any_dtype(values.dtype) or types.is_timedelta64_dtype(values.dtype):
        raise InvalidData(
            f"Column {name!r} holds times; say what matters of them in a column of numbers."
        )
    if values.isna().all():
        raise InvalidData(f"Column {name!r} has no value at all; leave it out.")
    if _is_numbers(values):
        numbers = _floats(name, values)
        missing = bool(numpy.isnan(numbers).any())
        return _Numbers(name, float(numpy.nanmedian(numbers)), missing)
    categories = tuple(sorted(set(values.dropna().astype(str))))
    if len(categories) > MAX_CATEGORIES:
        raise InvalidData(
            f"Column {name!r} has {len(categories):,} categories, more than {MAX_CATEGORIES:,}; {_advice(values)}."
        )
    return _Categories(name, categories)


def _advice(values: pandas.Series[Any]) -> str:
    """What to do about a column of too many categories: mostly it is one of numbers with a slip in it."""
    import numpy
    import pandas

    there = numpy.flatnonzero(values.notna())
    slips = pandas.to_numeric(values.iloc[there], errors="coerce").isna().to_numpy()
    if slips.mean() > 0.5:
        return "leave it out, or put them into fewer groups"
    row = int(there[slips.argmax()])
    return f"most are numbers, but row {row} is {values.iloc[row]!r}: mend or empty it"


@dataclass(frozen=True)
class _Numbers:
    """A column of numbers.

    Attributes:
        column: its name.
        median: stands for what is missing.
        flagged: whether a feature says what was missing.
    """

    column: str
    median: float
    flagged: bool

    @property
    def names(self) -> Sequence[str]:
        return (self.column, *[f"{self.column} is missing"] * self.flagged)

    def encode(self, values: pandas.Series[Any]) -> Sequence[Array]:
        import numpy

        if not _is_numbers(values):
            raise InvalidData(
                f"Column {self.column!r} is of numbers, and of something else in the test table; give both the same."
            )
        numbers = _floats(self.column, values)
        missing = numpy.isnan(numbers)
        return (numpy.where(missing, self.median, numbers), *[missing] * self.flagged)


@dataclass(frozen=True)
class _Categories:
    """A column of text or categories."""

    column: str
    categories: tuple[str, ...]

    @property
    def names(self) -> Sequence[str]:
        return [f"{self.column}={each}" for each in self.categories]

    def encode(self, values: pandas.Series[Any]) -> Sequence[Array]:
        there, texts = values.notna().to_numpy(), values.astype(str).to_numpy()
        return [(texts == each) & there for each in self.categories]


def _is_numbers(values: pandas.Series[Any]) -> bool:
    from pandas.api import types

    numeric = types.is_numeric_dtype(values.dtype) or types.is_bool_dtype(values.dtype)
    return bool(numeric and not types.is_complex_dtype(values.dtype))


def _floats(name: str, values: pandas.Series[Any]) -> Any:
    """Numbers as float64 `[rows]`, what is missing as NaN."""
    import numpy

    numbers = numpy.asarray(values.to_numpy(dtype=float, na_value=numpy.nan), dtype=float)
    if numpy.isinf(numbers).any():
        row = int(numpy.argmax(numpy.isinf(numbers)))
        raise InvalidData(
            f"Column {name!r}, row {row} is infinite; give a finite number, or leave it empty."
        )
    return numbers


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
    """A CSV file with a line of names first; the columns that a short line lacks are missing values.

    Raises:
        InvalidData: it is none; the line is named.
    """
    pandas = _pandas()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "error", pandas.errors.ParserWarning
            )  # of lines that are too long
            return pandas.read_csv(  # type: ignore[no-any-return]
                path, encoding="utf-8", index_col=False, low_memory=False
            )
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
        from pyarrow import parquet
    except ImportError as error:
        raise needs("pyarrow", "reading Parquet") from error
    try:
        facts = parquet.read_metadata(path)
        if facts.num_rows * facts.num_columns > MAX_VALUES:  # a page of one value may stand for all
            raise InvalidData(
                f"{path} has {facts.num_rows:,} rows of {facts.num_columns:,} columns, more than {MAX_VALUES:,} values."
            )
        return pandas.read_parquet(path, engine="pyarrow")  # type: ignore[no-any-return]
    except InvalidData:
        raise
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InvalidData(f"{path} is no Parquet file: {str(error).splitlines()[0]}.") from error


def _pandas() -> Any:
    try:
        import pandas
    except ImportError as error:
        raise needs("pandas", "reading tables") from error
    return pandas
