"""Panels of what an evaluation found out besides its learning curves, one for each kind of measurement."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from dropnorm.results._style import COLORS, INK, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from dropnorm.results.evaluation import Evaluation


class Panel(NamedTuple):
    """One panel.

    Attributes:
        title: what stands above it.
        shown: whether there is anything to draw.
        draw: draws it.
    """

    title: str
    shown: Callable[[Evaluation], bool]
    draw: Callable[[Axes, Evaluation], None]


def panels_of(evaluation: Evaluation) -> Iterator[tuple[str, Panel]]:
    """The panels that an evaluation has, by the names of their pictures."""
    return ((name, panel) for name, panel in PANELS.items() if panel.shown(evaluation))


def _calibrated(evaluation: Evaluation) -> bool:
    found = evaluation.mc_dropout
    return evaluation.temperature_scaling is not None or (
        found is not None and found.nll is not None
    )


def _draw_calibration(axes: Axes, evaluation: Evaluation) -> None:
    """A bar per way to predict the test split, in a group per metric."""
    ways: dict[str, Any] = {"as trained": evaluation.test}
    if evaluation.mc_dropout is not None:
        ways[f"MC dropout, {evaluation.mc_dropout.passes:,} passes"] = evaluation.mc_dropout
    if (scaling := evaluation.temperature_scaling) is not None:
        ways[f"temperature {scaling.temperature:.3g}"] = scaling.test_after
    metrics = {"NLL": "nll", "Brier": "brier", "ECE": "ece"}
    values = {way: [getattr(of, name) for name in metrics.values()] for way, of in ways.items()}
    _grouped_bars(axes, list(metrics), values)


def _grouped_bars(axes: Axes, groups: Sequence[str], values: Mapping[str, Sequence[float]]) -> None:
    width = 0.8 / len(values)
    for place, (label, heights) in enumerate(values.items()):
        middles = [index + (place - (len(values) - 1) / 2) * width for index in range(len(groups))]
        bars = axes.bar(middles, heights, 0.9 * width, color=COLORS[place], label=label)
        axes.bar_label(bars, fmt="%.3g", fontsize=8, color=INK, padding=2)
    axes.set_xticks(range(len(groups)), labels=groups)
    axes.grid(visible=False, axis="x")
    axes.margins(y=0.12)
    axes.legend(frameon=False, labelcolor=INK, fontsize=9)


PANELS: Mapping[str, Panel] = {
    "calibration": Panel("test: calibration", _calibrated, _draw_calibration),
}
"""Name of its picture -> panel."""


def draw_panel(axes: Axes, panel: Panel, evaluation: Evaluation) -> None:
    """Draw a panel into its axes."""
    style(axes, panel.title, "")
    panel.draw(axes, evaluation)
