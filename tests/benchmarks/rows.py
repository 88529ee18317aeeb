"""A line of the table, and the statistics in it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One measured quantity and what it should be."""

    name: str
    measured: str
    target: str
    reached: bool | None
    """None: it was not measured; `note` says why."""
    note: str = ""


def milliseconds(seconds: Sequence[float]) -> str:
    """Median, quartiles and number of some durations in seconds."""
    return _summary([1e3 * value for value in seconds], "ms")


def ratio(values: Sequence[float]) -> str:
    """Median, quartiles and number of some ratios."""
    return _summary(values, "x")


def _summary(values: Sequence[float], unit: str) -> str:
    middle = statistics.median(values)
    if len(values) < 4:
        low, high, spread = min(values), max(values), "range"
    else:
        low, _, high = statistics.quantiles(values, n=4)
        spread = "quartiles"
    return f"{middle:.3g} {unit} ({spread} {low:.3g} to {high:.3g}, n={len(values)})"
