"""Tables: columns of any kind become features by stated rules.

| column | becomes |
|---|---|
| numbers (decimals too), truth values | a feature; a missing value is the median, and `<name> is missing` says so |
| text | a feature `<name>=<category>` for each category, in alphabetical order; a missing or new value is none |
| pandas' categories | the same for each category that is declared, used or not, in pandas' order |

Medians, categories and which columns miss values are those of the table without its test split, where it has one of its
own. The target's rows must be complete.

Times and text that is dates throughout (`2026-01-31`) are refused: say what of them matters (the hour, the age) in a
column of numbers. So are text that is numbers for the most part, whole numbers that float32 does not hold exactly, and
anything else than numbers and text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dropnorm.datasets.arrays import from_arrays
from dropnorm.datasets.bundle import Bundle
from dropnorm.datasets.columns import check_text, kind_of, numbers_of, texts_of
from dropnorm.datasets.errors import InvalidData
from dropnorm.datasets.limits import MAX_NAME
from dropnorm.datasets.texts import from_labelled

if TYPE_CHECKING:
    import pandas

    from dropnorm.datasets.arrays import Task
    from dropnorm.datasets.bundle import Array
    from dropnorm.datasets.columns import Column
    from dropnorm.datasets.texts import Tokens

MAX_CATEGORIES = 1000
"""Categories of one column; more of them are rather names or keys, of which nothing is learned."""


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
        y: targets, a series or a frame too; absent: the column `target`.
        target: name of the target's column, by default the last one; not beside `y`.
        test: a frame with the same columns and targets, a test split of its own; targets None: the column `target`.
        task: `classification` or `regression`, where the type of the targets does not say it.
        class_names: names of the classes: in their order where the targets are numbers 0, 1, ..., and those that are
            the targets where these are text.

    Raises:
        InvalidData: a column cannot be used; it is named, and the row where there is one.
    """
    if y is not None and target is not None:
        raise InvalidData(f"Give y, or target={target!r} for a column of the table, and not both.")
    if not len(frame) or not len(frame.columns):
        raise InvalidData("The table is empty.")
    check_names("The table", [str(column) for column in frame.columns])
    if y is None and target is None:
        target = frame.columns[-1]
    samples, targets = _parted("The table", frame, y, target)
    encoding = Encoding(samples)
    tests = None
    if test is not None:
        test_samples, test_targets = _parted("The test table", *test, target)
        tests = encoding.encode(test_samples), test_targets
    called = ("y", "test y") if y is not None else (f"Target {target!r}", f"Test target {target!r}")
    return from_arrays(
        encoding.encode(samples),
        targets,
        test=tests,
        task=task,
        class_names=class_names,
        feature_names=encoding.names,
        called=called,
    )


def from_text_column(
    frame: pandas.DataFrame,
    text: str,
    *,
    target: str | None = None,
    test: tuple[Any, Any] | None = None,
    task: Task | None = None,
    class_names: Sequence[str] | None = None,
    tokens: Tokens = "characters",
    length: int = 128,
) -> Bundle:
    """A data set of labelled texts: two columns of a pandas frame; see `texts.from_labelled`.

    Args:
        frame: a row per sample.
        text: name of the texts' column.
        target: name of the targets' column; absent: the last one that is not `text`.
        test: a frame with the same two columns, and None.
        task: as `from_frame` has it.
        class_names: likewise.
        tokens: what a token is.
        length: tokens of a sample at most, 2 to 4096.

    Raises:
        InvalidData: a column is missing, or a text or target is of no use; its row is named.
    """
    others = [column for column in frame.columns if column != text]
    if target is None and others:
        target = others[-1]
    columns = [_columns("The table", frame, text, target)]
    if test is not None:
        columns.append(_columns("The test table", test[0], text, target))
    return from_labelled(
        *columns[0],
        test=columns[1] if test is not None else None,
        task=task,
        class_names=class_names,
        tokens=tokens,
        length=length,
        called=(f"Column {text!r}", f"Test column {text!r}"),
        targets_called=(f"Target {target!r}", f"Test target {target!r}"),
    )


def _columns(what: str, frame: pandas.DataFrame, *names: str | None) -> tuple[Any, Any]:
    if not len(frame):
        raise InvalidData(f"{what} is empty.")
    for name in names:
        _require(what, frame, name)
    first, second = names
    return frame[first], frame[second]


def _require(what: str, frame: pandas.DataFrame, column: str | None, purpose: str = "") -> None:
    """Refuse a frame without a column; the ones that it has are named."""
    if column not in frame.columns:
        known = ", ".join(map(str, frame.columns[:20]))
        raise InvalidData(f"{what} has no column {column!r}{purpose}; it has {known}.")


def check_names(what: str, names: Sequence[str]) -> None:
    """Refuse columns that have no name, or have one together.

    Raises:
        InvalidData: the column is named, or its number.
    """
    for number, name in enumerate(names, start=1):
        if not name.strip():
            raise InvalidData(f"{what} has no name for column {number}; give it one.")
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise InvalidData(f"{what} has two columns {name!r}; rename one.")


def _parted(what: str, frame: Any, y: Any, target: str | None) -> tuple[pandas.DataFrame, Any]:
    """The columns to learn from, and the targets."""
    if not hasattr(frame, "columns"):
        raise InvalidData(f"{what} is no pandas frame as the other is; give one.")
    if not len(frame) or not len(frame.columns):
        raise InvalidData(f"{what} is empty.")
    check_names(what, [str(column) for column in frame.columns])
    if y is None:
        if target is None:
            raise InvalidData(f"{what} has no targets; give them beside it, as y is given.")
        _require(what, frame, target, " for the target")
        y, frame = frame[target], frame.drop(columns=[target])
    if not len(frame.columns):
        raise InvalidData("No column but the target is left to learn from.")
    return frame, y


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
        long = next((name for name in self.names if len(name) > MAX_NAME), None)
        if long is not None:
            raise InvalidData(
                f"A feature would be called {long[:60]!r}... in {len(long):,} characters, more than {MAX_NAME}; "
                "shorten the column's name or its texts, or leave it out."
            )

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


def _rule(name: str, values: Column) -> _Numbers | _Categories:
    import numpy

    what = f"Column {name!r}"
    kind = kind_of(what, values)
    if kind == "nothing":
        raise InvalidData(f"{what} has no value at all; leave it out.")
    if kind == "numbers":
        numbers = numbers_of(what, values)
        missing = bool(numpy.isnan(numbers).any())
        return _Numbers(name, float(numpy.nanmedian(numbers.astype(float))), missing)
    if kind == "categories":
        categories = tuple(texts_of(what, values.cat.categories.to_series()))
    else:
        texts = texts_of(what, values)
        check_text(what, texts)
        categories = tuple(sorted(texts.dropna().unique()))
    if len(categories) > MAX_CATEGORIES:
        raise InvalidData(
            f"{what} has {len(categories):,} categories, more than {MAX_CATEGORIES:,}; leave it out, or put them into "
            "fewer groups."
        )
    return _Categories(name, categories, declared=kind == "categories")


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

    def encode(self, values: Column) -> Sequence[Array]:
        import numpy

        what = f"Column {self.column!r}"
        if kind_of(what, values) not in ("numbers", "nothing"):
            raise InvalidData(
                f"{what} is of numbers, and of something else in the test table; give both the same."
            )
        numbers = numbers_of(what, values)
        missing = numpy.isnan(numbers)
        return (numpy.where(missing, self.median, numbers), *[missing] * self.flagged)


@dataclass(frozen=True)
class _Categories:
    """A column of text or categories.

    Attributes:
        column: its name.
        categories: each becomes a feature, in this order.
        declared: they are pandas' own categories, of which numbers may be some.
    """

    column: str
    categories: tuple[str, ...]
    declared: bool

    @property
    def names(self) -> Sequence[str]:
        return [f"{self.column}={each}" for each in self.categories]

    def encode(self, values: Column) -> Sequence[Array]:
        import pandas

        what = f"Column {self.column!r}"
        if kind_of(what, values) == "numbers" and not self.declared:
            raise InvalidData(
                f"{what} is of text, and of numbers in the test table; give both the same."
            )
        codes = pandas.Index(self.categories).get_indexer(pandas.Index(texts_of(what, values)))
        return [codes == number for number in range(len(self.categories))]
