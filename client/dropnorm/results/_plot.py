"""Learning curves of one evaluation, and of several compared. Drawn with matplotlib, without pyplot and its state."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

try:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator
except ImportError as error:
    raise ImportError(
        "charts are drawn with matplotlib: pip install 'dropnorm[notebook]'"
    ) from error

from dropnorm.results._format import mean_and_deviation

if TYPE_CHECKING:
    from dropnorm.results.evaluation import EpochMetrics, Evaluation

Measure = Callable[["EpochMetrics"], "float | None"]

# Told apart by people who see few colours too (Okabe & Ito 2008), darkened to read well on white.
COLORS = ("#5b6470", "#e08a00", "#0f6fb4", "#0a8f66", "#c2542d", "#a8558c", "#3a9fd6", "#8a7a12")

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

_INK = "#1f2933"
_GRID = "#e3e7ec"


class Chart(Figure):
    """A figure that a notebook shows whichever backend it has set up."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()


def plot_evaluation(evaluation: Evaluation) -> Chart:
    """Loss and what else the task measures, by epoch: train and validation, the best epoch marked."""
    measures = _measures(evaluation)
    chart = _chart(len(measures), f"{evaluation.dataset.name}: learning curves")
    for axes, (title, train, validation) in zip(_row(chart, len(measures)), measures, strict=True):
        _style(axes, title)
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
        axes.legend(frameon=False, labelcolor=_INK)
    return chart


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
    chart = _chart(len(measures) + 1, title)
    *panels, dots = _row(chart, len(measures) + 1)
    for axes, (name, train, validation) in zip(panels, measures, strict=True):
        _style(axes, name)
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
    _style(axes, f"test {_test_metric(first)[0]}", "")
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


def _chart(panels: int, title: str) -> Chart:
    chart = Chart(figsize=(4.6 * panels, 4.3), layout="constrained", facecolor="white")
    chart.suptitle(title, fontsize=13, fontweight="bold", color=_INK)
    return chart


def _row(chart: Chart, panels: int) -> list[Axes]:
    return [chart.add_subplot(1, panels, index + 1) for index in range(panels)]


def _style(axes: Axes, title: str, x: str = "epoch") -> None:
    axes.set_title(title, fontsize=11, color=_INK)
    axes.set_xlabel(x, color=_INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_INK, labelsize=9, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_GRID)


def _legend(chart: Chart, axes: Axes) -> None:
    """One for all panels, below them; and what the two kinds of line mean."""
    handles, labels = axes.get_legend_handles_labels()
    styles: Sequence[tuple[str, Any]] = (("validation", "-"), ("train", "--"))
    for label, line in styles:
        handles.append(axes.plot([], [], line, color=_INK, linewidth=1.4)[0])
        labels.append(label)
    chart.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=len(labels),
        frameon=False,
        labelcolor=_INK,
    )


def _colors() -> Iterator[str]:
    while True:
        yield from COLORS
