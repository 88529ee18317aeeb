"""The filter of a list of data sets: that of `jobs.filtering`, over the fields of a data set.

task = classification AND samples >= 1000
name:flowers OR create_time > 2026-01-31T00:00:00Z
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, get_args

from dropnorm.results import Dataset
from dropnorm.results.evaluation import Task
from dropnorm_service.jobs.filtering import (
    BOOLEAN,
    COMPARE,
    EQUALITY,
    NUMBER,
    TEXT,
    TIME,
    And,
    Comparison,
    Filter,
    IsSet,
    Kind,
    Not,
    Or,
)


def _task(text: str) -> str:
    known = get_args(Task)
    if text.lower() not in known:
        raise ValueError(f"a task is one of {', '.join(known)}")
    return text.lower()


FIELDS: Mapping[str, Kind] = {
    "name": TEXT,
    "task": Kind(EQUALITY, _task),
    "samples": NUMBER,
    "test_samples": NUMBER,
    "outputs": NUMBER,
    "size_bytes": NUMBER,
    "create_time": TIME,
    "owner": TEXT,
    "shared": BOOLEAN,
}
"""What a filter may compare."""

_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    **COMPARE,
    ":": lambda field, value: value.lower() in field.lower(),
}


def matches(tree: Filter | None, dataset: Dataset) -> bool:
    """Whether a data set passes a filter."""
    match tree:
        case Comparison(field, compared, value):
            return _OPERATORS[compared](getattr(dataset, field), value)
        case And(terms):
            return all(matches(term, dataset) for term in terms)
        case Or(terms):
            return any(matches(term, dataset) for term in terms)
        case Not(term):
            return not matches(term, dataset)
        case None | IsSet():
            return True  # every data set has all of its fields
        case _:
            raise TypeError(f"{tree} is no filter of data sets")
