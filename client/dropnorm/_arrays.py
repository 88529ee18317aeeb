"""Arrays of any kind as the bytes that travel. Nothing here imports numpy, torch or pandas: who has them gives them."""

from __future__ import annotations

import operator
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, prod
from typing import Any, NoReturn

from dropnorm._tensors import numpy_of
from dropnorm.errors import InvalidRequest
from dropnorm.spec import Problem, Tensor
from dropnorm.spec.prediction import ITEM_BYTES, MAX_TENSOR_BYTES, Dtype

_CALL_BYTES = MAX_TENSOR_BYTES // 2
"""Of one call's inputs, had they four bytes each, so that as many outputs fit into its answer."""
_CALL_INPUTS = 100_000
_MAX_DIMENSIONS = 8

_AS: dict[str, Dtype] = {
    **dict.fromkeys("efd", "float32"),
    "B": "uint8",
    "?": "uint8",
    **dict.fromkeys("bhHiIlLqQn", "int64"),
}
"""What a buffer's numbers travel as, by its format."""
_CODES: dict[Dtype, str] = {"float32": "f", "uint8": "B", "int64": "q"}
_INT64_MAX = 2**63 - 1


@dataclass(frozen=True)
class Packed:
    """Inputs as they travel, `[inputs, ...]`, however many they are."""

    shape: tuple[int, ...]
    dtype: Dtype
    data: bytes

    def __len__(self) -> int:
        return self.shape[0]

    def inputs_of_a_call(self, batch_size: int | None) -> int:
        """How many inputs are sent at a time.

        Args:
            batch_size: as many; None: as fit.

        Raises:
            InvalidRequest: it is no number of inputs, or so many are more than a call takes.
        """
        if batch_size is None:
            fitting = _CALL_BYTES // (4 * max(prod(self.shape[1:]), 1))
            return max(1, min(_CALL_INPUTS, fitting))
        given: Any = batch_size
        count = operator.index(given) if hasattr(given, "__index__") and given is not True else 0
        if count < 1:
            text = f"give a whole number of inputs, 1 or more, or None, not {batch_size!r}"
            raise InvalidRequest(problems=[Problem("batch_size", text)])
        return count

    def cut(self, start: int, count: int) -> Tensor:
        """So many inputs from one on, or as many as there are.

        Raises:
            InvalidRequest: they are more than a call takes.
        """
        rows = min(count, len(self) - start)
        size = prod(self.shape[1:]) * ITEM_BYTES[self.dtype]
        part = self.data[start * size : (start + rows) * size]
        if len(part) > MAX_TENSOR_BYTES:
            limit = f"a call takes {MAX_TENSOR_BYTES:,}; give a smaller batch_size"
            text = f"{rows} inputs are {len(part):,} bytes, and {limit}"
            raise InvalidRequest(problems=[Problem("inputs", text)])
        return Tensor(shape=(rows, *self.shape[1:]), dtype=self.dtype, data=part)


def packed(x: Any) -> Packed:
    """Inputs as what travels: float32, int64 or uint8.

    Args:
        x: a numpy array, a torch tensor, a pandas frame, or lists in lists, whose rows may be arrays: `[inputs, ...]`.

    Raises:
        InvalidRequest: it is none of these, or a number is not finite or fits into none of the types; the
            input is named by its index.
    """
    if hasattr(x, "detach"):
        x = _numpy_of_torch(x)
    elif hasattr(x, "to_numpy"):  # a pandas frame
        x = x.to_numpy()
    if hasattr(x, "filled") and hasattr(x, "mask"):
        _unfit("not a masked array; fill in what is masked first")
    if (
        getattr(getattr(x, "dtype", None), "kind", "") == "O"
    ):  # numbers with others, as of nullable columns
        x = x.tolist()
    found = _packed_lists(x) if isinstance(x, list | tuple) else _packed_buffer(x)
    if len(found.shape) > _MAX_DIMENSIONS:
        _unfit(f"of at most {_MAX_DIMENSIONS} dimensions, not {len(found.shape)}")
    return found


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Tensors one behind the other. The whole may be larger than what one call takes."""
    first, *others = parts
    if not others:
        return first
    return Tensor.model_construct(
        shape=(sum(map(len, parts)), *first.shape[1:]),
        dtype=first.dtype,
        data=b"".join(part.data for part in parts),
    )


def _numpy_of_torch(x: Any) -> Any:
    try:
        return numpy_of(x)
    except (TypeError, RuntimeError):
        kind = f"{x.dtype}, {x.layout} on {x.device}"
        _unfit(f"not a tensor that is {kind}; make it a dense one of numbers first")


def _packed_buffer(x: Any) -> Packed:
    try:
        view = memoryview(x)
    except (TypeError, ValueError):
        _unfit(f"not of type {x.dtype}" if hasattr(x, "dtype") else f"not {type(x).__name__}")
    if view.ndim == 0:
        _unfit("not a single number")
    code = view.format.lstrip("<>=@!")
    dtype = _AS.get(code)
    shape = tuple(view.shape or ())
    if dtype is None:
        _unfit(f"not of type {getattr(x, 'dtype', view.format)}")
    if dtype == "uint8":
        return Packed(shape, dtype, view.tobytes())
    if hasattr(x, "astype"):
        return Packed(shape, dtype, _converted(x, dtype))
    flat = view.cast("B").cast(code).tolist() if view.nbytes else []  # type: ignore[call-overload]
    return Packed(shape, dtype, _bytes(flat, dtype, shape))


def _converted(x: Any, dtype: Dtype) -> bytes:
    """A numpy array's numbers in another type, all of them finite and none another number than before."""
    numpy: Any = sys.modules["numpy"]  # who has an array has it
    if dtype == "int64":
        fits = x <= _INT64_MAX if x.dtype.kind == "u" else numpy.True_
        values = x
    else:
        with numpy.errstate(over="ignore"):
            values = x.astype(dtype)
        fits = numpy.isfinite(values)
    if not fits.all():
        place = tuple(int(each[0]) for each in (~fits).nonzero())
        _wrong_value(place[0], x[place], dtype)
    data: bytes = values.astype(f"<{'i8' if dtype == 'int64' else 'f4'}", copy=False).tobytes()
    return data


def _packed_lists(x: Sequence[Any]) -> Packed:
    shape: list[int] = []
    level: list[Any] = [x]
    while level and isinstance(level[0], list | tuple):
        lengths = {len(each) if isinstance(each, list | tuple) else -1 for each in level}
        if len(lengths) > 1:
            _unfit("whose lists at one level are of one length")
        shape.append(lengths.pop())
        level = [item for each in level for item in each]
    if level and getattr(level[0], "shape", None):
        return _packed_rows(tuple(shape), level)
    numbers = [_number(item) for item in level]
    whole = bool(numbers) and all(isinstance(item, int) for item in numbers)
    dtype: Dtype = "int64" if whole else "float32"
    return Packed(tuple(shape), dtype, _bytes(numbers, dtype, tuple(shape)))


def _packed_rows(shape: tuple[int, ...], rows: Sequence[Any]) -> Packed:
    """Lists whose items are arrays of one shape and type."""
    parts = [packed(row) for row in rows]
    if len({part.shape for part in parts}) > 1:
        _unfit("whose arrays are of one shape")
    if len({part.dtype for part in parts}) > 1:
        _unfit("whose arrays are of one type")
    first = parts[0]
    return Packed((*shape, *first.shape), first.dtype, b"".join(part.data for part in parts))


def _number(item: Any) -> Any:
    """A scalar of numpy or torch as Python's own."""
    try:
        return item.item() if hasattr(item, "item") else item
    except (TypeError, ValueError, RuntimeError):
        return item


def _bytes(numbers: list[Any], dtype: Dtype, shape: tuple[int, ...]) -> bytes:
    try:
        flat = array(_CODES[dtype], numbers)
    except (TypeError, ValueError, OverflowError):
        flat = None
    if flat is not None and (dtype != "float32" or all(map(isfinite, flat))):
        return flat.tobytes()
    width = max(prod(shape[1:]), 1)
    for index, item in enumerate(numbers):
        try:
            [value] = array(_CODES[dtype], [item])
            fits = isfinite(value)
        except OverflowError:
            fits = False
        except (TypeError, ValueError):
            _unfit(f"of numbers alone: input {index // width} has {_shown(item)}")
        if not fits:
            _wrong_value(index // width, item, dtype)
    raise AssertionError("one of the numbers was wrong")


def _wrong_value(index: int, value: Any, dtype: Dtype) -> NoReturn:
    kind = "finite float32 number" if dtype == "float32" else "int64 number"
    text = f"input {index} has {_shown(value)}, which is no {kind}; mend it or leave the input out"
    raise InvalidRequest(problems=[Problem("inputs.data", text)])


def _shown(value: Any) -> str:
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    return shown if len(shown) <= 40 else f"{shown[:39]}…"


def _unfit(why: str) -> NoReturn:
    text = f"give a numpy array, a torch tensor or lists of numbers, [inputs, ...], {why}"
    raise InvalidRequest(problems=[Problem("inputs", text)])
