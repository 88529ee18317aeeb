"""Panels of what an evaluation found out besides its learning curves, one for each kind of measurement."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from dropnorm.results._style import COLORS, INK, AutoLocator, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from dropnorm.results.evaluation import Evaluation


_MOST_NAMED = 24
"""Layers whose names have room."""
_MOST_REPORTS = 5
"""Reports that can be told apart, besides the last."""


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


def _draw_uncertainty(axes: Axes, evaluation: Evaluation) -> None:
    """What the passes of MC dropout say of their own trustworthiness."""
    found = evaluation.mc_dropout
    assert found is not None  # else the panel is not shown
    if found.standard_deviation is None:
        unit = "nats, mean over the test split"
        values = {
            "predictive entropy": found.predictive_entropy,
            "mutual information": found.mutual_information,
        }
    else:
        unit = "target's unit, mean over the test split"
        values = {
            "error as trained": evaluation.test.mae,
            "error of the mean pass": found.mae,
            "standard deviation over passes": found.standard_deviation,
        }
    names = [name for name, value in values.items() if value is not None]
    heights = [value for value in values.values() if value is not None]
    bars = axes.barh(range(len(names)), heights, 0.6, color=COLORS[: len(names)])
    axes.bar_label(bars, fmt="%.3g", fontsize=8, color=INK, padding=2)
    axes.set_yticks(range(len(names)), labels=names)
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.12)
    axes.set_xlabel(unit, color=INK)


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


def _draw_variance_shift(axes: Axes, evaluation: Evaluation) -> None:
    """Two bars per batch norm: the whole shift, and that by dropout alone."""
    found = evaluation.variance_shift
    for color, label, offset, attribute in (
        (COLORS[2], "evaluation / training", -0.2, "ratio"),
        (COLORS[1], "dropout off / on", 0.2, "dropout_ratio"),
    ):
        places = [place + offset for place in range(len(found))]
        ratios = [getattr(layer, attribute) for layer in found]
        axes.barh(places, ratios, 0.38, color=color, label=label)
    axes.axvline(1.0, color=INK, linewidth=1.2)
    axes.set_xlabel("ratio of variances", color=INK)
    _name_norms(axes, [layer.layer for layer in found])


def _has_schedule(evaluation: Evaluation) -> bool:
    rates = [epoch.dropout_rates for epoch in evaluation.history]
    return any(each != rates[0] for each in rates)


def _draw_dropout_rates(axes: Axes, evaluation: Evaluation) -> None:
    """The rates in force, which stand still within an epoch."""
    epochs = [each.epoch for each in evaluation.history]
    names = list(evaluation.history[0].dropout_rates)
    for place, name in enumerate(names, start=1):
        rates = [each.dropout_rates[name] for each in evaluation.history]
        color = COLORS[place % len(COLORS)]
        axes.plot(
            epochs,
            rates,
            drawstyle="steps-mid",
            color=color,
            linewidth=1.8,
            label=f"dropout.{name}",
        )
    if len(names) > 1:
        axes.legend(frameon=False, labelcolor=INK, fontsize=8)
    axes.set_ylim(bottom=0.0)
    axes.set_xlabel("epoch", color=INK)


def _is_recalibrated(evaluation: Evaluation) -> bool:
    return evaluation.recalibration is not None and bool(evaluation.recalibration.layers)


def _draw_recalibration(axes: Axes, evaluation: Evaluation) -> None:
    """Two bars per batch norm: how far its running mean and variance have moved, over its channels."""
    assert evaluation.recalibration is not None  # else the panel is not shown
    found = evaluation.recalibration.layers
    for offset, color, label, attribute in (
        (-0.2, COLORS[1], "mean, in deviations", "mean_shift"),
        (0.2, COLORS[2], "variance, as a share", "variance_shift"),
    ):
        places = [place + offset for place in range(len(found))]
        widths = [getattr(layer, attribute) for layer in found]
        axes.barh(places, widths, 0.36, color=color, label=label)
    axes.set_xlabel("shift of running statistics, mean over channels", color=INK)
    _name_norms(axes, [layer.layer for layer in found])


def _name_norms(axes: Axes, names: Sequence[str]) -> None:
    """The vertical axis of bars per batch norm, the first on top."""
    axes.xaxis.set_major_locator(AutoLocator())
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    if len(names) <= _MOST_NAMED:
        axes.set_yticks(range(len(names)), labels=names)
    else:
        axes.set_ylabel("number of the batch norm", color=INK)
    # Bars fill the panel, so it stands below them.
    axes.legend(
        frameon=False,
        labelcolor=INK,
        fontsize=8,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.12),
        ncols=2,
    )


def _draw_robustness(axes: Axes, evaluation: Evaluation) -> None:
    """A line per corruption, from the split as it is on; dashed with batch norm adapted."""
    clean, *found = evaluation.robustness
    name = "loss" if clean.accuracy is None else "accuracy"
    corruptions = dict.fromkeys(row.corruption for row in found)
    for color, corruption in zip(COLORS[1:], corruptions, strict=False):
        rows = [clean, *(row for row in found if row.corruption == corruption)]
        for attribute, line in ((name, "-"), (f"adapted_{name}", "--")):
            values = [getattr(row, attribute) for row in rows]
            if None not in values:
                text = corruption.replace("_", " ") + (", adapted" if line == "--" else "")
                strengths = [row.strength for row in rows]
                axes.plot(strengths, values, line, color=color, label=text, linewidth=1.6)
    axes.set_xlabel("strength", color=INK)
    axes.set_ylabel(f"test {name}", color=INK)
    axes.legend(frameon=False, labelcolor=INK, fontsize=8)


def _reported(evaluation: Evaluation) -> bool:
    return any(epoch.layers for epoch in evaluation.history)


def _has_activations(evaluation: Evaluation) -> bool:
    return any(row.dead_share is not None for epoch in evaluation.history for row in epoch.layers)


def _draw_layers(attribute: str, scale: str) -> Callable[[Axes, Evaluation], None]:
    """A line per report from the first to the last layer, the later the darker."""

    def draw(axes: Axes, evaluation: Evaluation) -> None:
        reports = [epoch for epoch in evaluation.history if epoch.layers]
        shown = reports[:: max(1, -(-len(reports) // _MOST_REPORTS))]
        shown += [reports[-1]] * (shown[-1] is not reports[-1])
        for place, epoch in enumerate(shown, 1):
            values = [
                value for row in epoch.layers if (value := getattr(row, attribute)) is not None
            ]
            axes.plot(
                range(1, len(values) + 1),
                values,
                color=COLORS[2],
                alpha=place / len(shown),
                label=f"epoch {epoch.epoch}",
                marker="o",
                markersize=3,
                linewidth=1.4,
            )
        if scale == "log":
            axes.set_yscale("log")
        if scale == "share":
            axes.set_ylim(0.0, max(0.1, axes.get_ylim()[1]))
        axes.set_xlabel("number of the layer, from the input", color=INK)
        axes.legend(frameon=False, labelcolor=INK, fontsize=8)

    return draw


PANELS: Mapping[str, Panel] = {
    "dropout_rates": Panel("dropout rates in force", _has_schedule, _draw_dropout_rates),
    "calibration": Panel("test: calibration", _calibrated, _draw_calibration),
    "mc_dropout": Panel(
        "test: MC dropout", lambda each: each.mc_dropout is not None, _draw_uncertainty
    ),
    "variance_shift": Panel(
        "variance shift at batch norms",
        lambda each: bool(each.variance_shift),
        _draw_variance_shift,
    ),
    "recalibration": Panel("batch norms recalibrated", _is_recalibrated, _draw_recalibration),
    "gradient_norms": Panel(
        "gradient norm by layer", _reported, _draw_layers("gradient_norm", "log")
    ),
    "output_means": Panel("mean of outputs by layer", _reported, _draw_layers("mean", "linear")),
    "output_variances": Panel(
        "variance of outputs by layer", _reported, _draw_layers("variance", "log")
    ),
    "dead_units": Panel(
        "share of dead units by activation", _has_activations, _draw_layers("dead_share", "share")
    ),
    "robustness": Panel("test: robustness", lambda each: bool(each.robustness), _draw_robustness),
}
"""Name of its picture -> panel."""


def draw_panel(axes: Axes, panel: Panel, evaluation: Evaluation) -> None:
    """Draw a panel into its axes."""
    style(axes, panel.title, "")
    panel.draw(axes, evaluation)
