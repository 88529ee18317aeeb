"""Arrays as they come, numpy's, torch's or lists, as the arrays of a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from dropnorm.datasets.bundle import Bundle, manifest_of
from dropnorm.datasets.classes import Classes
from dropnorm.datasets.errors import InvalidData, InvalidRow
from dropnorm.datasets.values import array_of, as_float32, numpy_for

if TYPE_CHECKING:
    from dropnorm.datasets.bundle import Array

Task = Literal["classification", "regression"]

_CHANNELS = (1, 3, 4)


def from_arrays(
    x: Any,
    y: Any,
    *,
    test: tuple[Any, Any] | None = None,
    task: Task | None = None,
    class_names: Sequence[str] | None = None,
    feature_names: Sequence[str] = (),
    called: tuple[str, str] = ("y", "test y"),
) -> Bundle:
    """A data set of samples `x` and targets `y`.

    `x` is `[samples, features]`, images `[samples, height, width]` or `[samples, channels, height, width]`; bytes stay
    bytes, other numbers become float32, and a whole number that float32 does not hold exactly is refused. `y` of whole
    numbers, truth values or text are classes, in the order of their values; of other numbers regression targets,
    `[samples]` or `[samples, targets]`, as are several columns of whole numbers. Of pandas' categories the classes are
    those that are declared, used or not, in their order.

    Args:
        x: samples.
        y: targets; a pandas series or frame too.
        test: samples and targets of a test split of its own, of the same classes.
        task: overrides what the type of `y` says.
        class_names: names of the classes: in their order where `y` is numbers 0, 1, ..., and those that are the labels
            where it is text.
        feature_names: names of the features.
        called: what sentences call the targets and those of the test split.

    Raises:
        InvalidData: a value is missing, infinite or of no use; its row and column are named.
        ImportError: numpy is not installed.
    """
    arrays = {"x": _inputs("X", x)}
    if test is not None:
        arrays["test_x"] = _inputs("test X", test[0])
        one, other = arrays["x"], arrays["test_x"]
        if (one.shape[1:], one.dtype) != (other.shape[1:], other.dtype):
            raise InvalidData(
                f"A sample of X is {_told(one)}, and of test X {_told(other)}; give both the same."
            )
    targets = targets_of(y, test, task=task, class_names=class_names, called=called)
    manifest = manifest_of(
        task=targets.task, class_names=targets.class_names, feature_names=tuple(feature_names)
    )
    contiguous = numpy_for("uploading data").ascontiguousarray
    whole = {name: contiguous(each) for name, each in {**arrays, **targets.arrays}.items()}
    return Bundle(manifest, whole)


class Targets(NamedTuple):
    """Targets of a data set: `y`, and `test_y` where it has a test split of its own."""

    task: Task
    class_names: tuple[str, ...]
    arrays: Mapping[str, Array]


def targets_of(
    y: Any,
    test: tuple[Any, Any] | None,
    *,
    task: Task | None,
    class_names: Sequence[str] | None,
    called: tuple[str, str] = ("y", "test y"),
) -> Targets:
    """Targets as they come; see `from_arrays`.

    Raises:
        InvalidData: one is missing, infinite or of no use.
    """
    targets, declared = _labels(called[0], y, task)
    if task is None:
        task = "classification" if declared else _task(called[0], targets, class_names)
    given = {"y": (called[0], targets)}
    if test is not None:
        given["test_y"] = called[1], _labels(called[1], test[1], task)[0]
    if task == "classification":
        if class_names is not None:
            classes = Classes.named(targets, class_names)
        else:
            classes = declared or Classes.found_in(called[0], targets)
        numbers = {key: classes.numbers(name, labels) for key, (name, labels) in given.items()}
        return Targets(task, classes.names, numbers)
    if class_names is not None:
        raise InvalidData("class_names are for classification, and this is regression.")
    numbers = {key: _numbers(name, values) for key, (name, values) in given.items()}
    if len({each.shape[1] for each in numbers.values()}) > 1:
        raise InvalidData(
            f"{called[0]} and {called[1]} have not as many targets; give both the same."
        )
    return Targets(task, (), numbers)


def _labels(name: str, values: Any, task: Task | None) -> tuple[Array, Classes | None]:
    """Targets as an array, and the classes that pandas has declared for them."""
    if values is None:
        raise InvalidData(
            f"{name} is absent; give a class or numbers for each sample: samples without targets cannot be uploaded."
        )
    if hasattr(values, "isna"):
        from dropnorm.datasets.columns import labels_of

        return labels_of(name, values, task)
    return array_of(name, values), None


def _task(name: str, targets: Array, class_names: Sequence[str] | None) -> Task:
    """What the type of the targets says.

    Raises:
        InvalidData: it says nothing: whole numbers, as good as each another one, may be either.
    """
    import numpy

    if targets.dtype.kind == "f":
        return "regression"
    if targets.dtype.kind in "biu" and targets.ndim == 2 and targets.shape[1] > 1:
        if numpy.isin(targets, (0, 1)).all():
            raise InvalidData(
                f"{name} has {targets.shape[1]} columns of 0 and 1; give one class per sample (their argmax), or say "
                "task='regression'."
            )
        return "regression"
    if targets.dtype.kind in "iu" and class_names is None:
        different = len(numpy.unique(targets))
        if different > max(50, targets.size // 10):
            raise InvalidData(
                f"{name} has {different:,} different whole numbers in {len(targets):,} rows; say task='regression', or "
                "task='classification' if each is a class."
            )
    return "classification"


def _told(array: Array) -> str:
    return f"{array.dtype} {list(array.shape[1:])}"


def _inputs(name: str, values: Any) -> Array:
    array = array_of(name, values)
    if array.dtype.kind not in "biuf":
        raise InvalidData(f"{name} is text; give numbers, or a pandas frame for categories.")
    if array.ndim == 4 and array.shape[3] in _CHANNELS and array.shape[1] not in _CHANNELS:
        raise InvalidData(
            f"{name} has the shape {array.shape}, channels last as it seems; give [samples, channels, height, width]: "
            "numpy.moveaxis(X, 3, 1)."
        )
    if array.ndim in (1, 3):
        array = array[:, None]
    if array.ndim not in (2, 4) or 0 in array.shape:
        raise InvalidData(
            f"{name} has the shape {array.shape}; give [samples, features], [samples, height, width] or "
            "[samples, channels, height, width]."
        )
    return array if array.dtype.name == "uint8" else _floats(name, array)


def _floats(name: str, array: Array) -> Array:
    import numpy

    floats: Array
    floats, wrong = as_float32(array)
    if wrong.any():
        row, *place = (int(each) for each in numpy.argwhere(wrong)[0])
        raise InvalidRow(
            f"{name}, ",
            row,
            f", column {', '.join(map(str, place)) or 0} is {array[(row, *place)]}; give finite numbers that float32 "
            "holds, or a pandas frame to have missing values filled.",
        )
    return floats


def _numbers(name: str, array: Array) -> Array:
    """Regression targets: float32 `[samples, targets]`."""
    if array.dtype.kind not in "biuf" or array.ndim not in (1, 2):
        raise InvalidData(
            f"{name} has type {array.dtype} and shape {array.shape}; targets are numbers, one row each."
        )
    return _floats(name, array.reshape(len(array), -1))
