"""How charts look, and what they are drawn on: matplotlib, without pyplot and its state."""

from __future__ import annotations

import io

try:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import AutoLocator as AutoLocator
    from matplotlib.ticker import MaxNLocator
except ImportError as error:
    raise ImportError(
        "charts are drawn with matplotlib: pip install 'dropnorm[notebook]'"
    ) from error

# Told apart by people who see few colours too (Okabe & Ito 2008), darkened to read well on white.
COLORS = ("#5b6470", "#e08a00", "#0f6fb4", "#0a8f66", "#c2542d", "#a8558c", "#3a9fd6", "#8a7a12")

INK = "#1f2933"
_GRID = "#e3e7ec"


class Chart(Figure):
    """A figure that a notebook shows whichever backend it has set up."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()


def chart_of(panels: int, title: str, *, columns: int = 6) -> tuple[Chart, list[Axes]]:
    """A chart and its panels, row by row."""
    columns = min(panels, columns)
    rows = -(-panels // columns)
    chart = Chart(figsize=(4.6 * columns, 4.3 * rows), layout="constrained", facecolor="white")
    chart.suptitle(title, fontsize=13, fontweight="bold", color=INK)
    return chart, [chart.add_subplot(rows, columns, index + 1) for index in range(panels)]


def style(axes: Axes, title: str, x: str = "epoch") -> None:
    """Give a panel its title, the name of its horizontal axis, and the look of all."""
    axes.set_title(title, fontsize=11, color=INK)
    axes.set_xlabel(x, color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=9, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_GRID)
