"""Arrays as they come, numpy's, torch's or lists, as the arrays of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from dropnorm.datasets.bundle import Bundle, manifest_of
from dropnorm.datasets.errors import InvalidData, needs

if TYPE_CHECKING:
    from dropnorm.datasets.bundle import Array

Task = Literal["classification", "regression"]


def from_arrays(
    x: Any,
    y: Any,
    *,
    test: tuple[Any, Any] | None = None,
    task: Task | None = None,
    class_names: Sequence[str] | None = None,
    feature_names: Sequence[str] = (),
) -> Bundle:
    """A data set of samples `x` and targets `y`.

    `x` is `[samples, features]`, images `[samples, height, width]` or `[samples, channels, height, width]`; bytes stay
    bytes, other numbers become float32. `y` of whole numbers, truth values or text are classes, in the order of their
    values; of other numbers regression targets, `[samples]` or `[samples, targets]`.

    Args:
        x: samples.
        y: targets.
        test: samples and targets of a test split of its own.
        task: overrides what the type of `y` says.
        class_names: names of the classes 0, 1, ... where `y` is their numbers.
        feature_names: names of the features.

    Raises:
        InvalidData: a value is missing, infinite or of no use; its row and column are named.
        ImportError: numpy is not installed.
    """
    numpy = _numpy()
    inputs, targets = _inputs("X", x), _array("y", y)
    if task is None:
        task = _task(targets, class_names)
    arrays: dict[str, Array] = {"x": inputs}
    tests = None if test is None else (_inputs("test X", test[0]), _array("test y", test[1]))
    if tests and (tests[0].shape[1:], tests[0].dtype) != (inputs.shape[1:], inputs.dtype):
        raise InvalidData(
            f"A sample of X is {_told(inputs)}, and of test X {_told(tests[0])}; give both the same."
        )
    if task == "classification":
        names, arrays["y"] = _classes(targets, class_names)
        if tests:
            arrays |= {"test_x": tests[0], "test_y": _numbered("test y", tests[1], targets, names)}
    else:
        if class_names is not None:
            raise InvalidData("class_names are for classification, and this is regression.")
        names, arrays["y"] = (), _targets("y", targets)
        if tests:
            arrays |= {"test_x": tests[0], "test_y": _targets("test y", tests[1])}
            if arrays["test_y"].shape[1] != arrays["y"].shape[1]:
                raise InvalidData("y and test y have not as many targets; give both the same.")
    manifest = manifest_of(task=task, class_names=names, feature_names=tuple(feature_names))
    return Bundle(manifest, {name: numpy.ascontiguousarray(each) for name, each in arrays.items()})


def _task(targets: Array, class_names: Sequence[str] | None) -> Task:
    """What the type of the targets says.

    Raises:
        InvalidData: it says nothing: whole numbers, as good as each another one, may be either.
    """
    if targets.dtype.kind == "f":
        return "regression"
    if targets.dtype.kind in "iu" and class_names is None:
        different = len(_numpy().unique(targets))
        if different > max(50, targets.size // 10):
            raise InvalidData(
                f"y has {different:,} different whole numbers in {len(targets):,} rows; say task='regression', or "
                "task='classification' if each is a class."
            )
    return "classification"


def _told(array: Array) -> str:
    return f"{array.dtype} {list(array.shape[1:])}"


def _array(name: str, values: Any) -> Array:
    """Anything as a numpy array of numbers or text."""
    numpy = _numpy()
    if hasattr(values, "detach"):  # a torch tensor, wherever it is
        values = values.detach().cpu().numpy()
    try:
        array: Array = numpy.asarray(values)
    except ValueError as error:
        raise InvalidData(f"{name} is no array: {error}") from error
    if array.dtype.kind == "O" and all(isinstance(each, str) for each in array.ravel()):
        return array.astype(str)
    if array.dtype.kind not in "biufUS":
        raise InvalidData(f"{name} has the type {array.dtype}; give numbers, or text for classes.")
    return array


def _inputs(name: str, values: Any) -> Array:
    array = _array(name, values)
    if array.dtype.kind not in "biuf":
        raise InvalidData(f"{name} is text; give numbers, or a pandas frame for categories.")
    if array.ndim in (1, 3):
        array = array[:, None]
    if array.ndim not in (2, 4) or 0 in array.shape:
        raise InvalidData(
            f"{name} has the shape {array.shape}; give [samples, features], [samples, height, width] or "
            "[samples, channels, height, width]."
        )
    return array if array.dtype.name == "uint8" else _floats(name, array)


def _floats(name: str, array: Array) -> Array:
    numpy = _numpy()
    with numpy.errstate(over="ignore"):
        floats: Array = array.astype(numpy.float32)
    wrong = ~numpy.isfinite(floats)
    if array.dtype.kind in "iu":
        wrong |= floats.astype(numpy.float64) != array.astype(numpy.float64)
    if wrong.any():
        row, *place = (int(each) for each in numpy.argwhere(wrong)[0])
        value = array[(row, *place)]
        raise InvalidData(
            f"{name}, row {row}, column {', '.join(map(str, place)) or 0} is {value}; give finite numbers that float32 "
            "holds, or a pandas frame to have missing values filled."
        )
    return floats


def _targets(name: str, array: Array) -> Array:
    if array.dtype.kind not in "biuf" or array.ndim not in (1, 2):
        raise InvalidData(
            f"{name} has type {array.dtype} and shape {array.shape}; targets are numbers, one row each."
        )
    return _floats(name, array.reshape(len(array), -1))


def _classes(array: Array, names: Sequence[str] | None) -> tuple[tuple[str, ...], Array]:
    numpy = _numpy()
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise InvalidData(f"y has the shape {array.shape}; give one class per sample.")
    if array.dtype.kind == "f":
        whole = numpy.isfinite(array) & (array == numpy.round(array))
        if not whole.all():
            row = int(numpy.argmin(whole))
            raise InvalidData(
                f"y, row {row} is {array[row]}, which is no class; say task='regression'."
            )
        array = array.astype(numpy.int64)
    if names is None:
        found, numbers = numpy.unique(array, return_inverse=True)
        return tuple(str(each) for each in found.tolist()), numbers.reshape(-1).astype(numpy.int64)
    given = tuple(map(str, names))
    return given, _numbered("y", array, array, given)


def _numbered(name: str, array: Array, reference: Array, names: tuple[str, ...]) -> Array:
    """Classes as numbers: as they are where they were numbered already, else by the values of the reference."""
    numpy = _numpy()
    array = array.reshape(-1)
    found = numpy.unique(reference)
    by_value = tuple(str(each) for each in found.tolist()) == names
    numbers = numpy.searchsorted(found, array) if by_value else array
    known = numpy.isin(array, found) if by_value else numpy.isin(array, numpy.arange(len(names)))
    if not known.all():
        row = int(numpy.argmin(known))
        raise InvalidData(
            f"{name}, row {row} is class {array[row]}, which is none of {len(names)}."
        )
    return numbers.astype(numpy.int64)


def _numpy() -> Any:
    try:
        import numpy
    except ImportError as error:
        raise needs("numpy", "uploading data") from error
    return numpy
