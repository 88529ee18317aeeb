"""Classes: which number each label of a classification has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dropnorm.datasets.errors import InvalidData, InvalidRow
from dropnorm.datasets.limits import MAX_NAME

if TYPE_CHECKING:
    from dropnorm.datasets.bundle import Array


@dataclass(frozen=True)
class Classes:
    """The classes in their order; the same for every split.

    Attributes:
        names: the name of each.
        values: the label that stands for each; a whole number is the same label in every type, 1 and 1.0.
    """

    names: tuple[str, ...]
    values: tuple[Any, ...]

    @classmethod
    def of_values(cls, values: Iterable[Any]) -> Classes:
        """Classes that are called as their labels are."""
        values = tuple(values)
        return cls(tuple(map(name_of, values)), values)

    @classmethod
    def found_in(cls, name: str, labels: Array) -> Classes:
        """A class for each label, in the order of the labels.

        Raises:
            InvalidData: a label is no class, or no name of one.
        """
        import numpy

        labels = _column(name, labels)
        found, rows = numpy.unique(labels, return_index=True)
        classes = cls.of_values(found.tolist())
        for each, row in zip(classes.names, rows.tolist(), strict=True):
            if not 0 < len(each) <= MAX_NAME:
                told = f"a class name of {len(each):,} characters" if each else "an empty text"
                raise InvalidRow(
                    f"{name}, ",
                    row,
                    f" is {told}; the name of a class has 1 to {MAX_NAME} characters.",
                )
        return classes

    @classmethod
    def named(cls, labels: Array, names: Sequence[str]) -> Classes:
        """Classes by given names, which are the labels themselves where those are text, and 0, 1, ... otherwise."""
        given = tuple(map(str, names))
        return cls(given, given if labels.dtype.kind == "U" else tuple(range(len(given))))

    def numbers(self, name: str, labels: Array) -> Array:
        """The number of the class of each label: int64 `[samples]`.

        Raises:
            InvalidData: a label is of none of the classes; its row is named.
        """
        import numpy

        labels = _column(name, labels)
        found, places = numpy.unique(labels, return_inverse=True)
        by_value = {value: number for number, value in enumerate(self.values)}
        numbers = numpy.array([by_value.get(each, -1) for each in found.tolist()], numpy.int64)
        result: Array = numbers[places.reshape(-1)]
        unknown = numpy.equal(result, -1)
        if unknown.any():
            row = int(unknown.argmax())
            known = ", ".join(map(str, self.names[:5])) + ", ..." * (len(self.names) > 5)
            raise InvalidRow(
                f"{name}, ",
                row,
                f" is class {labels[row]}, which is none of {len(self.names)} ({known}).",
            )
        return result


def name_of(value: Any) -> str:
    """What a label or category is called; a whole number alike in every type."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _column(name: str, labels: Any) -> Any:
    """Labels as `[samples]`, none of them a fraction."""
    import numpy

    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise InvalidData(
            f"{name} has the shape {labels.shape}; give one class per sample, or say task='regression'."
        )
    if labels.dtype.kind == "f":
        whole = numpy.isfinite(labels) & (labels == numpy.round(labels))
        if not whole.all():
            row = int(numpy.argmin(whole))
            raise InvalidRow(
                f"{name}, ", row, f" is {labels[row]}, which is no class; say task='regression'."
            )
    return labels
