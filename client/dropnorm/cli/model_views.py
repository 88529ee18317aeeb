"""What `dropnorm models` shows."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from dropnorm.cli.render import owner_of, table
from dropnorm.results import Model, ModelExport, Prediction, _format

_ROWS = 50
_VALUES = 8


def predictions_table(said: Prediction) -> RenderableType:
    """A row per input, of the first ones."""
    rows = table()
    first = next(iter(said.rows()), {})
    main = "probabilities" if "probabilities" in first else "outputs"
    shown = [name for name in first if name == main or name not in ("outputs", "probabilities")]
    rows.add_column("input", justify="right")
    for name in shown:
        rows.add_column(name.replace("_", " "))
    for index, row in zip(range(_ROWS), said.rows(), strict=False):
        rows.add_row(str(index), *(escape(_shown(row[name])) for name in shown))
    if len(said) <= _ROWS:
        return rows
    return Group(rows, f"[dim]The first {_ROWS} of {len(said):,}; --json shows all.")


def export_view(export: ModelExport) -> RenderableType:
    """The file and its proof."""
    proof = export.proof
    rows = table(f"{export.name}, {_format.size(export.size_bytes)}")
    rows.add_column("")
    for heading in ("exported", "original"):
        rows.add_column(heading, justify="right")
    if proof.accuracy is not None:
        rows.add_row(
            "test accuracy",
            _format.number(proof.accuracy),
            _format.number(proof.original_accuracy),
        )
    rows.add_row(
        f"ms for {proof.batch_size} inputs, median, {proof.threads} threads",
        f"{proof.milliseconds:.3f}",
        f"{proof.original_milliseconds:.3f}",
    )
    return Group(
        rows,
        f"  largest deviation {proof.largest_deviation:.1e} over {proof.samples:,} inputs, of outputs up to "
        f"{proof.largest_output:.3g}",
        f"  {export.folded_norms} norms folded, {export.kept_norms} kept, {export.removed_dropouts} dropouts removed",
    )


def models_table(models: Iterable[Model]) -> Table:
    """A row per version."""
    rows = table()
    for heading in ("version", "owner", "aliases", "job"):
        rows.add_column(heading, overflow="fold")
    for model in models:
        for version in model.versions:
            rows.add_row(
                f"[bold]{escape(version.name.removeprefix('models/'))}",
                owner_of(model),
                escape(", ".join(version.aliases)),
                escape(version.training_job.rpartition("/")[2]),
            )
    return rows


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        parts = [_shown(each) for each in value[:_VALUES]]
        return " ".join([*parts, "…"] if len(value) > _VALUES else parts)
    return str(value)
