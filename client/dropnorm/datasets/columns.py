"""What a column of a pandas frame holds, whatever pandas calls its type."""

from __future__ import annotations

import datetime
import numbers
import re
from contextlib import suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from dropnorm.datasets.classes import Classes, name_of
from dropnorm.datasets.errors import InvalidData, InvalidRow
from dropnorm.datasets.values import as_float32, decoded

if TYPE_CHECKING:
    import pandas

    from dropnorm.datasets.arrays import Task
    from dropnorm.datasets.bundle import Array

    Column = pandas.Series[Any]

Kind = Literal["numbers", "text", "categories", "nothing"]

# By the words of pandas.api.types.infer_dtype, which looks at the values where the type says nothing.
_NUMBERS = ("boolean", "integer", "floating", "mixed-integer-float", "decimal")
_TEXT = ("string", "bytes", "interval")
_TIMES = ("datetime64", "datetime", "date", "timedelta64", "timedelta", "time", "period")

_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ].*)?")


def kind_of(what: str, values: Column) -> Kind:
    """What a column holds; `what` is what a sentence calls it.

    Raises:
        InvalidData: times, or things that are neither numbers nor text.
    """
    import pandas
    from pandas.api import types

    if isinstance(values.dtype, pandas.CategoricalDtype):
        if len(values.cat.categories):
            kind_of(what, values.cat.categories.to_series())
        return "nothing" if values.isna().all() else "categories"
    if values.isna().all() and not types.is_datetime64_any_dtype(values.dtype):
        return "nothing"
    found = types.infer_dtype(values, skipna=True)
    if found in _TIMES:
        raise InvalidData(f"{what} holds times; say what matters of them in a column of numbers.")
    if found in _NUMBERS:
        return "numbers"
    return "text" if found in _TEXT else _kind_of_mixture(what, values)


def _kind_of_mixture(what: str, values: Column) -> Kind:
    """Numbers of several types, or text among them."""
    kinds = set()
    for row, each in enumerate(values):
        number = isinstance(each, numbers.Real | Decimal)  # truth values too
        if not number and not isinstance(each, str | bytes) and _is_there(each):
            raise InvalidRow(
                f"{what}, ",
                row,
                f" is of the type {type(each).__name__}; give numbers or text, or leave the column out.",
            )
        kinds.add("numbers" if number else "text")
    return "numbers" if kinds == {"numbers"} else "text"


def _is_there(value: Any) -> bool:
    import pandas

    return not (pandas.api.types.is_scalar(value) and pandas.isna(value))


def numbers_of(what: str, values: Column) -> Array:
    """Numbers as float32 `[rows]`, what is missing as NaN.

    Raises:
        InvalidRow: one is infinite, too large, or a whole number that float32 does not hold exactly.
    """
    import numpy

    there = numpy.flatnonzero(values.notna())
    given = _native(values.iloc[there].to_numpy())
    if given.dtype.kind == "O":  # whole numbers beyond 64 bits, or decimals among truth values
        given = numpy.array([_as_float(each) for each in given.tolist()])
    floats, wrong = as_float32(given)
    if wrong.any():
        row = int(there[wrong.argmax()])
        raise InvalidRow(
            f"{what}, ",
            row,
            f" is {values.iloc[row]}; give a finite number that float32 holds, or leave it empty.",
        )
    result = numpy.full(len(values), numpy.nan, numpy.float32)
    result[there] = floats
    return result


def _native(given: Any) -> Any:
    """Numbers in a type of numpy's, if one holds them."""
    import pandas

    if given.dtype.kind == "O":
        with suppress(OverflowError):
            return pandas.to_numeric(given)
    return given


def _as_float(value: Any) -> float:
    with suppress(OverflowError):
        number = float(value)
        if not isinstance(value, int) or number == value:
            return number
    return float("inf")  # refused with those that no float32 holds


def texts_of(what: str, values: Column) -> Column:
    """What each value is called, as a column of objects; what is missing is None."""
    import pandas

    names = [
        (
            decoded(f"{what}, ", row, each)
            if isinstance(each, str | bytes)
            else name_of(each)
            if _is_there(each)
            else None
        )
        for row, each in enumerate(values)
    ]
    return pandas.Series(names, dtype=object)


def check_text(what: str, texts: Column) -> None:
    """Refuse text that was to be something else.

    Raises:
        InvalidData: all of it is dates, or most of it numbers.
    """
    import numpy
    import pandas

    there = numpy.flatnonzero(texts.notna())
    given = texts.iloc[there]
    if all(map(_is_date, given.unique())):
        raise InvalidData(f"{what} holds times; say what matters of them in a column of numbers.")
    slips = pandas.to_numeric(given, errors="coerce").isna().to_numpy()
    if 0 < slips.mean() < 0.5:
        row = int(there[slips.argmax()])
        raise InvalidRow(
            f"{what}: most are numbers, but ",
            row,
            f" is {texts.iloc[row]!r}; mend or empty it, or let all begin with a letter if they are categories.",
        )


def _is_date(text: str) -> bool:
    if not _ISO_DATE.fullmatch(text):
        return False
    with suppress(ValueError):
        datetime.datetime.fromisoformat(text)
        return True
    return False


def labels_of(name: str, given: Any, task: Task | None) -> tuple[Array, Classes | None]:
    """Targets that are a series, a categorical or a frame: as an array, and the classes where categories declare them.

    Raises:
        InvalidData: a target is missing, or a column can be no target.
    """
    import numpy
    import pandas

    if isinstance(given, pandas.DataFrame) and len(given.columns) != 1:
        columns = [_labels_of(f"{name}, column {key!r}", given[key], task) for key in given.columns]
        if not columns or any(labels.dtype.kind not in "biuf" for labels, _ in columns):
            raise InvalidData(f"{name} has {len(columns)} columns; several targets are numbers.")
        return numpy.column_stack([labels for labels, _ in columns]), None
    return _labels_of(name, given.iloc[:, 0] if hasattr(given, "columns") else given, task)


def _labels_of(name: str, given: Any, task: Task | None) -> tuple[Array, Classes | None]:
    import numpy
    import pandas

    values = pandas.Series(given)
    missing = values.isna().to_numpy()
    if missing.any():
        raise InvalidRow(
            f"{name} is missing in ", int(missing.argmax()), "; drop such rows, or fill them."
        )
    kind = kind_of(name, values)
    if kind == "categories":
        return _declared(name, values)
    if kind == "numbers":
        labels = _native(values.to_numpy())
        return labels if labels.dtype.kind in "biuf" else numbers_of(name, values), None
    texts = texts_of(name, values)
    if task != "classification":
        check_text(name, texts)
    return numpy.array(texts.to_list(), dtype=str), None


def _declared(name: str, values: Column) -> tuple[Array, Classes]:
    """Labels of categories and these as classes, used or not, in their order."""
    import numpy

    categories = values.cat.categories
    if categories.dtype.kind in "biuf":
        labels: Any = categories.to_numpy()
    else:
        labels = numpy.array(texts_of(name, categories.to_series()).to_list(), dtype=str)
    return labels[values.cat.codes.to_numpy()], Classes.of_values(labels.tolist())
