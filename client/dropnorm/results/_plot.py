"""Learning curves of one evaluation, and of several compared. Drawn with matplotlib, without pyplot and its state."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from dropnorm.results._format import mean_and_deviation
from dropnorm.results._panels import draw_panel, panels_of
from dropnorm.results._style import COLORS, INK, Chart, chart_of, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from dropnorm.results.evaluation import EpochMetrics, Evaluation

Measure = Callable[["EpochMetrics"], "float | None"]

PANELS = (
    ("loss", "loss"),
    ("accuracy", "accuracy"),
    ("sequence accuracy", "sequence_accuracy"),
    ("reconstruction", "reconstruction"),
    ("KL of codes", "kl"),
    ("generator loss", "generator_loss"),
    ("discriminator loss", "discriminator_loss"),
    ("perplexity", "perplexity"),
)
"""Title of a panel of learning curves, and what it shows: `train_eval_*` and `validation_*` of the epochs."""


def plot_evaluation(evaluation: Evaluation) -> Chart:
    """The learning curves, and a panel for each measurement that was asked for."""
    measures, found = _measures(evaluation), [panel for _, panel in panels_of(evaluation)]
    title = evaluation.dataset.name + ("" if found else ": learning curves")
    count = len(measures) + len(found)
    chart, axes = chart_of(count, title, columns=4 if found else count)
    _draw_curves(axes[: len(measures)], measures, evaluation)
    for place, panel in zip(axes[len(measures) :], found, strict=True):
        draw_panel(place, panel, evaluation)
    return chart


def plots(evaluation: Evaluation) -> dict[str, Chart]:
    """The same, each a chart of its own, by name; `learning_curves` first."""
    name, measures = evaluation.dataset.name, _measures(evaluation)
    curves, axes = chart_of(len(measures), f"{name}: learning curves")
    _draw_curves(axes, measures, evaluation)
    charts = {"learning_curves": curves}
    for key, panel in panels_of(evaluation):
        charts[key], (place,) = chart_of(1, name)
        draw_panel(place, panel, evaluation)
    return charts


def _draw_curves(
    panels: Sequence[Axes], measures: Sequence[tuple[str, Measure, Measure]], evaluation: Evaluation
) -> None:
    """Loss and what else the task measures, by epoch: train and validation, the best epoch marked."""
    for axes, (title, train, validation) in zip(panels, measures, strict=True):
        style(axes, title)
        for label, measure, color, line in (
            ("train", train, COLORS[0], "--"),
            ("validation", validation, COLORS[2], "-"),
        ):
            curve = _curve(evaluation, measure)
            axes.plot(
                range(1, len(curve) + 1), curve, line, color=color, label=label, linewidth=1.8
            )
        axes.axvline(
            evaluation.best_epoch,
            color=COLORS[1],
            linewidth=1.2,
            label=f"best epoch ({evaluation.best_epoch})",
        )
        axes.legend(frameon=False, labelcolor=INK)


def plot_comparison(
    groups: Mapping[str, Sequence[Evaluation]], *, title: str = "Learning curves"
) -> Chart:
    """Several ways to train, compared: a colour each, its mean over the repetitions and a band of one deviation.

    Args:
        groups: name of the way -> its evaluations, one per seed; at least one each, all of one task.
        title: what stands above the chart.

    Returns:
        A matplotlib Figure: what the task measures by epoch, and the test metric of every repetition.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: there is nothing to compare.
    """
    if not groups or not all(groups.values()):
        raise ValueError("plot_comparison needs at least one evaluation in every group")
    measures = _measures(next(iter(groups.values()))[0])
    chart, (*panels, dots) = chart_of(len(measures) + 1, title)
    for axes, (name, train, validation) in zip(panels, measures, strict=True):
        style(axes, name)
        drawn: list[Sequence[float]] = []
        for color, (label, evaluations) in zip(_colors(), groups.items(), strict=False):
            trains = [_curve(each, train) for each in evaluations]
            validations = [_curve(each, validation) for each in evaluations]
            _band(axes, trains, color, "--", None)
            _band(axes, validations, color, "-", label)
            drawn += trains + validations
        _zoom(axes, drawn)
    _test_dots(dots, groups)
    _legend(chart, panels[0])
    return chart


def _measures(evaluation: Evaluation) -> list[tuple[str, Measure, Measure]]:
    """Title, train and validation of each panel; the loss as trained where eval mode was not asked for."""
    evaluated = all(epoch.train_eval_loss is not None for epoch in evaluation.history)
    measures: list[tuple[str, Measure, Measure]] = []
    for title, name in PANELS:
        validation = f"validation_{name}"
        train = "train_loss" if name == "loss" and not evaluated else f"train_eval_{name}"
        if any(getattr(epoch, validation) is not None for epoch in evaluation.history):
            measures.append((title, attrgetter(train), attrgetter(validation)))
    return measures


def _curve(evaluation: Evaluation, measure: Measure) -> list[float]:
    values = (measure(epoch) for epoch in evaluation.history)
    return [float("nan") if value is None else value for value in values]


def _band(
    axes: Axes, curves: Sequence[Sequence[float]], color: str, line: str, label: str | None
) -> None:
    """The mean over the repetitions that reached an epoch, and one standard deviation around it."""
    columns = [
        [curve[epoch] for curve in curves if epoch < len(curve)]
        for epoch in range(max(map(len, curves)))
    ]
    epochs = range(1, len(columns) + 1)
    statistics = [mean_and_deviation(column) for column in columns]
    means = [mean for mean, _ in statistics]
    bold = line == "-"
    axes.plot(
        epochs,
        means,
        line,
        color=color,
        label=label,
        linewidth=2.0 if bold else 1.1,
        alpha=1.0 if bold else 0.75,
    )
    if bold:
        low = [mean - deviation for mean, deviation in statistics]
        high = [mean + deviation for mean, deviation in statistics]
        axes.fill_between(epochs, low, high, color=color, alpha=0.16, linewidth=0)


def _zoom(axes: Axes, curves: Iterable[Sequence[float]]) -> None:
    """Leave out the first steep epochs, which would flatten all that is worth seeing."""
    settled = [
        value for curve in curves for value in curve[len(curve) // 6 :] if math.isfinite(value)
    ]
    if settled:
        low, high = min(settled), max(settled)
        margin = 0.06 * (high - low or 1.0)
        axes.set_ylim(low - margin, high + margin)


def _test_dots(axes: Axes, groups: Mapping[str, Sequence[Evaluation]]) -> None:
    """A dot per repetition, and mean and deviation beside them."""
    first = next(iter(groups.values()))[0]
    style(axes, f"test {_test_metric(first)[0]}", "")
    for index, (color, evaluations) in enumerate(zip(_colors(), groups.values(), strict=False)):
        values = [_test_metric(each)[1] for each in evaluations]
        # Side by side, so that two equal repetitions are two dots.
        middle = (len(values) - 1) / 2
        spread = [index + 0.16 * (place - middle) / len(values) for place in range(len(values))]
        mean, deviation = mean_and_deviation(values)
        axes.scatter(spread, values, color=color, s=34, alpha=0.5, linewidths=0, zorder=3)
        axes.errorbar(
            index + 0.26,
            mean,
            yerr=deviation,
            color=color,
            marker="o",
            markersize=7,
            capsize=4,
            linewidth=2,
            zorder=4,
        )
    axes.set_xticks(range(len(groups)), labels=list(groups))
    axes.set_xlim(-0.6, len(groups) - 0.4)
    axes.grid(visible=False, axis="x")


def _test_metric(evaluation: Evaluation) -> tuple[str, float]:
    """Accuracy where there is one, MSE in the targets' own unit, or the loss."""
    test = evaluation.test
    if test.accuracy is not None:
        return "accuracy", test.accuracy
    return ("MSE", test.mse) if test.mse is not None else ("loss", test.loss)


def _legend(chart: Chart, axes: Axes) -> None:
    """One for all panels, below them; and what the two kinds of line mean."""
    handles, labels = axes.get_legend_handles_labels()
    styles: Sequence[tuple[str, Any]] = (("validation", "-"), ("train", "--"))
    for label, line in styles:
        handles.append(axes.plot([], [], line, color=INK, linewidth=1.4)[0])
        labels.append(label)
    chart.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=len(labels),
        frameon=False,
        labelcolor=INK,
    )


def _colors() -> Iterator[str]:
    while True:
        yield from COLORS
