"""Arrays of any kind as the bytes that travel. Nothing here imports numpy, torch or pandas: who has them gives them."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

from dropnorm.errors import InvalidRequest
from dropnorm.spec import Problem, Tensor
from dropnorm.spec.prediction import ITEM_BYTES, MAX_TENSOR_BYTES, Dtype

_CALL_BYTES = MAX_TENSOR_BYTES // 2
"""Of one call's inputs, had they four bytes each, so that as many outputs fit into its answer."""
_CALL_INPUTS = 100_000

_AS: dict[str, Dtype] = {
    **dict.fromkeys("efd", "float32"),
    "B": "uint8",
    "?": "uint8",
    **dict.fromkeys("bhHiIlLqQn", "int64"),
}
"""What a buffer's numbers travel as, by its format."""
_CODES: dict[Dtype, str] = {"float32": "f", "uint8": "B", "int64": "q"}


def pieces(x: Any, batch_size: int | None) -> Iterator[Tensor]:
    """Inputs as tensors small enough for a call each.

    Args:
        x: a numpy array, a torch tensor, a pandas frame, or lists in lists: `[inputs, ...]`.
        batch_size: inputs of a call; None: as many as fit.

    Raises:
        InvalidRequest: it is none of these.
    """
    shape, dtype, data = _packed(x)
    values = prod(shape[1:])
    count = batch_size or max(1, min(_CALL_INPUTS, _CALL_BYTES // (4 * max(values, 1))))
    size = values * ITEM_BYTES[dtype]
    for start in range(0, max(shape[0], 1), count):
        rows = min(count, shape[0] - start)
        part = data[start * size : (start + rows) * size]
        if len(part) > MAX_TENSOR_BYTES:
            limit = f"a call takes {MAX_TENSOR_BYTES:,}; give a smaller batch_size"
            text = f"{rows} inputs are {len(part):,} bytes, and {limit}"
            raise InvalidRequest(problems=[Problem("inputs", text)])
        yield Tensor(shape=(rows, *shape[1:]), dtype=dtype, data=part)


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


def _packed(x: Any) -> tuple[tuple[int, ...], Dtype, bytes]:
    if hasattr(x, "detach"):  # a torch tensor
        x = x.detach().cpu().numpy()
    elif hasattr(x, "to_numpy"):  # a pandas frame
        x = x.to_numpy()
    if isinstance(x, list | tuple):
        return _packed_lists(x)
    try:
        view = memoryview(x)
    except (TypeError, ValueError):
        raise _unfit(f"not {type(x).__name__}") from None
    if view.ndim == 0:
        raise _unfit("not a single number")
    code = view.format.lstrip("<>=@!")
    dtype = _AS.get(code)
    if dtype is None:
        raise _unfit(f"not of type {getattr(x, 'dtype', view.format)}")
    swapped = view.format[0] in ">!"
    if swapped or code in "ed" or view.itemsize != ITEM_BYTES[dtype]:
        view = memoryview(_converted(x, view, dtype))
    return view.shape or (), dtype, view.tobytes()


def _converted(x: Any, view: memoryview, dtype: Dtype) -> Any:
    if hasattr(x, "astype"):
        return x.astype(dtype)
    flat = array(_CODES[dtype], view.cast("B").cast(view.format).tolist())  # type: ignore[call-overload]
    return memoryview(flat).cast("B").cast(_CODES[dtype], list(view.shape or ()))  # type: ignore[call-overload]


def _packed_lists(x: Sequence[Any]) -> tuple[tuple[int, ...], Dtype, bytes]:
    shape: list[int] = []
    level: list[Any] = [x]
    while level and isinstance(level[0], list | tuple):
        lengths = {len(each) if isinstance(each, list | tuple) else -1 for each in level}
        if len(lengths) > 1:
            raise _unfit("whose lists at one level are of one length")
        shape.append(lengths.pop())
        level = [item for each in level for item in each]
    whole = bool(level) and all(isinstance(item, int) for item in level)
    dtype: Dtype = "int64" if whole else "float32"
    try:
        data = array(_CODES[dtype], level).tobytes()
    except (TypeError, OverflowError):
        raise _unfit("of numbers alone") from None
    return tuple(shape), dtype, data


def _unfit(why: str) -> InvalidRequest:
    text = f"give a numpy array, a torch tensor or lists of numbers, [inputs, ...], {why}"
    return InvalidRequest(problems=[Problem("inputs", text)])
