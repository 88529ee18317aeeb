"""Pictures of an evaluation, drawn without a display."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.ticker import PercentFormatter

from dropnorm.results import AutoOutcome, Evaluation, Task

_MOST_NAMED_CLASSES = 30
_MOST_COUNTED_CLASSES = 20
_INK = "#1f2933"
_LOSSES: Mapping[Task, str] = {
    "classification": "cross-entropy in nats",
    "regression": "MSE",
    "reconstruction": "negative ELBO in nats",
    "generation": "Fréchet distance",
    "sequence_to_sequence": "cross-entropy in nats per token",
    "masked_language_modelling": "cross-entropy in nats per token",
}
_COLUMNS = 8
_LARGEST_TILE = 96
_DPI = 120


def draw(evaluation: Evaluation, title: str, folder: Path) -> None:
    """Write `learning_curves.png` into a folder, a picture of each measurement that was asked for, in
    classification of up to 100 classes `confusion_matrix.png`, after a range test `range_test.png`."""
    charts = evaluation.plots()
    curves = charts["learning_curves"]
    units = {"loss": _LOSSES[evaluation.task], "accuracy": "share that is right"}
    for axes in curves.axes:
        axes.set_ylabel(units.get(axes.get_title(), "nats"), color=_INK)
    for name, chart in charts.items():
        text = f"{title}: {name.replace('_', ' ')}"
        chart.suptitle(text, fontsize=13, fontweight="bold", color=_INK)
        chart.savefig(folder / f"{name}.png", dpi=_DPI)
    if evaluation.test.confusion_matrix:
        matrix = confusion_matrix(evaluation, f"{title}: confusion matrix")
        matrix.savefig(folder / "confusion_matrix.png", dpi=_DPI)
    if evaluation.auto is not None and evaluation.auto.range_test:
        test = range_test(evaluation.auto, f"{title}: learning-rate range test")
        test.savefig(folder / "range_test.png", dpi=_DPI)


def tiles(images: np.ndarray[tuple[int, ...]], path: Path) -> None:
    """Write images, uint8 `[images, height, width, 3]`, side by side in rows of eight, enlarged to be seen."""
    count, height, width, _ = images.shape
    rows = -(-count // _COLUMNS)
    cells = np.full((rows * _COLUMNS, height + 2, width + 2, 3), 255, np.uint8)
    cells[:count, 1:-1, 1:-1] = images
    grid = cells.reshape(rows, _COLUMNS, height + 2, width + 2, 3).swapaxes(1, 2)
    sheet = grid.reshape(rows * (height + 2), _COLUMNS * (width + 2), 3)
    factor = max(1, _LARGEST_TILE // max(height, width))
    imsave(path, sheet.repeat(factor, axis=0).repeat(factor, axis=1))


def range_test(auto: AutoOutcome, title: str) -> Figure:
    """The loss of each step by its learning rate, up to where it diverges, and the rate that was chosen."""
    rates = np.array([point.learning_rate for point in auto.range_test])
    losses = np.array([point.loss for point in auto.range_test])
    figure = Figure(figsize=(7.0, 4.2), layout="constrained", facecolor="white")
    figure.suptitle(title, fontsize=13, fontweight="bold", color=_INK)
    axes = figure.subplots()
    axes.plot(rates, losses, color="#0f6fb4", linewidth=1.8)
    axes.set_xscale("log")
    if np.isfinite(losses[0]):
        lowest = losses[np.isfinite(losses)].min()
        axes.set_ylim(lowest - 0.05 * abs(lowest), losses[0] + abs(losses[0] - lowest))
    if auto.learning_rate is not None:
        label = f"chosen ({auto.learning_rate:.3g})"
        axes.axvline(auto.learning_rate, color="#e08a00", linewidth=1.2, label=label)
        axes.legend(frameon=False, labelcolor=_INK)
    axes.set_xlabel("learning rate", color=_INK)
    axes.set_ylabel("loss of the step's batch", color=_INK)
    axes.tick_params(colors=_INK, labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def confusion_matrix(evaluation: Evaluation, title: str) -> Figure:
    """Counts of the test samples by true and predicted class, coloured by their share of the true class."""
    counts = np.array(evaluation.test.confusion_matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [row.name for row in evaluation.test.classes]
    size = min(max(4.8, 0.45 * len(names) + 1.6), 14.0)
    figure = Figure(figsize=(size + 0.9, size), layout="constrained", facecolor="white")
    figure.suptitle(title, fontsize=13, fontweight="bold", color=_INK)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0.0, 1.0))  # errors are few
    scale = figure.colorbar(image, ax=axes, fraction=0.046, label="share of the true class")
    scale.ax.yaxis.set_major_formatter(PercentFormatter(xmax=1.0))
    scale.outline.set_visible(False)

    accuracy = evaluation.test.accuracy or 0.0
    axes.set_title(
        f"test split, {evaluation.test.samples:,} samples, accuracy {accuracy:.2%}",
        fontsize=11,
        color=_INK,
    )
    axes.set_xlabel("predicted class", color=_INK)
    axes.set_ylabel("true class", color=_INK)
    axes.tick_params(colors=_INK, labelsize=9, length=0)
    axes.spines[:].set_visible(False)
    if len(names) <= _MOST_NAMED_CLASSES:
        slanted = max(len(name) for name in names) > 3
        axes.set_xticks(
            range(len(names)),
            names,
            rotation=45 if slanted else 0,
            ha="right" if slanted else "center",
        )
        axes.set_yticks(range(len(names)), names)
    if len(names) <= _MOST_COUNTED_CLASSES:
        _write_counts(axes, counts, shares)
    return figure


def _write_counts(
    axes: Axes, counts: np.ndarray[tuple[int, ...]], shares: np.ndarray[tuple[int, ...]]
) -> None:
    for (row, column), count in np.ndenumerate(counts):
        if count:
            color = "white" if shares[row, column] > 0.3 else _INK
            axes.text(column, row, f"{count:,}", ha="center", va="center", color=color, fontsize=9)
