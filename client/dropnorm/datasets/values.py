"""Anything that holds numbers or text, numpy's, torch's or lists, as numpy arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dropnorm._tensors import numpy_of
from dropnorm.datasets.errors import InvalidData, InvalidRow, needs

if TYPE_CHECKING:
    from dropnorm.datasets.bundle import Array


def array_of(name: str, values: Any) -> Array:
    """An array of numbers, truth values or text; bytes in UTF-8 become text.

    Raises:
        InvalidData: it is something else, or some of it is missing.
        ImportError: numpy is not installed.
    """
    numpy = numpy_for("uploading data")
    if isinstance(values, numpy.ma.MaskedArray):
        _refuse_masked(name, values)
    if hasattr(values, "detach"):
        values = _of_tensor(name, values)
    try:
        array: Array = numpy.asarray(values)
        if array.dtype.kind in "US" and not hasattr(values, "dtype"):
            array = numpy.asarray(values, dtype=object)  # numpy has made text of what was none
    except ValueError as error:
        raise InvalidData(f"{name} is no array: {error}") from error
    if array.dtype.kind == "O" and any(isinstance(each, str | bytes) for each in array.flat):
        return _of_objects(name, array)
    if array.dtype.kind == "S":
        return _of_objects(name, array.astype(object))
    if array.dtype.kind == "O":
        _refuse_missing(name, array)
    if array.dtype.kind not in "biufU":
        raise InvalidData(f"{name} has the type {array.dtype}; give numbers, or text for classes.")
    return array


def as_float32(array: Any) -> tuple[Any, Any]:
    """Numbers as float32, and where one is not finite, or a whole number that float32 does not hold exactly."""
    import numpy

    with numpy.errstate(over="ignore"):
        floats = array.astype(numpy.float32)
    wrong = ~numpy.isfinite(floats)
    if array.dtype.kind in "iu" and array.dtype.itemsize > 2:
        above = float(int(numpy.iinfo(array.dtype).max) + 1)  # what the largest ones are rounded to
        held = floats < above
        wrong |= ~held | (numpy.where(held, floats, 0).astype(array.dtype) != array)
    return floats, wrong


def numpy_for(what: str) -> Any:
    """numpy, or the error that says what it is needed for."""
    try:
        import numpy
    except ImportError as error:
        raise needs("numpy", what) from error
    return numpy


def _refuse_masked(name: str, values: Any) -> None:
    import numpy

    mask = numpy.ma.getmaskarray(values)
    if mask.any():
        row = int(numpy.argwhere(mask)[0][0]) if mask.ndim else 0
        raise InvalidRow(
            f"{name}, ", row, " is masked; fill it, or give a pandas frame to have it filled."
        )


def _of_tensor(name: str, tensor: Any) -> Any:
    try:
        return numpy_of(tensor)
    except (RuntimeError, TypeError) as error:
        raise InvalidData(f"{name} is no array of numbers: {error}") from error


def _of_objects(name: str, array: Array) -> Array:
    """Text that numpy does not know to be text, each value in the end a str."""
    texts = []
    for index, each in enumerate(array.flat):
        row = index // max(1, array[0].size if array.ndim > 1 else 1)
        if not isinstance(each, str | bytes):
            raise InvalidRow(f"{name}, ", row, f" is {each!r} among text; give text, or drop it.")
        texts.append(decoded(f"{name}, ", row, each))
    import numpy

    return numpy.array(texts, dtype=str).reshape(array.shape)


def decoded(before: str, row: int, value: str | bytes) -> str:
    """A text, of bytes in UTF-8 where it is bytes.

    Raises:
        InvalidRow: it is no UTF-8.
    """
    if isinstance(value, str):
        return str(value)
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRow(
            before, row, " is bytes that are no UTF-8; give text or numbers."
        ) from error


def _refuse_missing(name: str, array: Array) -> None:
    for row, each in enumerate(array):
        if each is None:
            raise InvalidRow(
                f"{name}, ", row, " is None; fill it or drop the sample, or give a pandas frame."
            )
