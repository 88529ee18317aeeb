"""How the command shows things to people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from rich import box
from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from dropnorm.cli.safe_console import SafeConsole
from dropnorm.results import (
    Dataset,
    Evaluation,
    Event,
    Model,
    Plan,
    State,
    TrainingJob,
    Worker,
    _findings,
    _format,
)
from dropnorm.spec import TrainingSpec

stdout = SafeConsole(highlight=False)
stderr = SafeConsole(stderr=True, highlight=False)

_STATE_STYLES: Mapping[str, str] = {
    State.QUEUED: "yellow",
    State.RUNNING: "cyan",
    State.PAUSING: "magenta",
    State.PAUSED: "magenta",
    State.CANCELLING: "red dim",
    State.SUCCEEDED: "green",
    State.FAILED: "bold red",
    State.CANCELLED: "dim",
}

_EVENT_STYLES: Mapping[str, str] = {
    "state": "bold",
    "epoch": "cyan",
    "warning": "yellow",
    "evaluation": "green",
    "tracking": "blue",
}


def table(title: str | None = None) -> Table:
    """A table in the command's style."""
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        header_style="dim",
        pad_edge=False,
    )


def tell_sharing(thing: TrainingJob | Dataset | Model, as_json: bool) -> None:
    """Say whether something is shared now; as JSON the whole of it."""
    if as_json:
        print(thing.model_dump_json())
    else:
        how = "shared with the project" if thing.shared else "not shared"
        stderr.print(f"[bold]{escape(thing.name)}[/] is {how}", soft_wrap=True)


def owner_of(thing: TrainingJob | Dataset | Model) -> str:
    """Whose something is, and whether others see it."""
    return escape(thing.owner) + (" [dim](shared)" if thing.shared else "")


def jobs_table(jobs: Iterable[TrainingJob]) -> Table:
    """A row per job, with its owner where there are users: the width of a terminal is little enough."""
    shown = list(jobs)
    users = any(job.shared or job.owner not in ("", "local") for job in shown)
    rows = table()
    for heading in ("id", "name", *(["owner"] if users else []), "experiment", "state", "progress"):
        rows.add_column(heading, overflow="fold")
    rows.add_column("test", justify="right")
    rows.add_column("created", justify="right")
    for job in shown:
        rows.add_row(
            escape(job.id),
            escape(job.display_name),
            *([owner_of(job)] if users else []),
            escape(job.experiment),
            _state(job.state),
            _epochs(job),
            _score(job.evaluation),
            _ago(job.create_time),
        )
    return rows


def job_view(job: TrainingJob) -> RenderableType:
    """Everything about one job."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_column(overflow="fold")
    for label, value in _facts(job):
        facts.add_row(label, value)
    parts: list[RenderableType] = [
        Panel(facts, title=f"[bold]{escape(job.display_name)}", title_align="left", expand=False)
    ]
    if job.evaluation is not None:
        parts.append(evaluation_view(job.evaluation))
    return Group(*parts)


def evaluation_view(evaluation: Evaluation) -> RenderableType:
    """Metrics of the three splits, the gap and the cost, and all else that was found out."""
    metrics = table(_format.evaluation_title(evaluation))
    (_, *splits), rows = _format.metric_table(evaluation)
    metrics.add_column("")
    for split in splits:
        metrics.add_column(split, justify="right", style="bold green" if split == "test" else "")
    for row in rows:
        metrics.add_row(*row)
    return Group("", metrics, *(f"[dim]{escape(note)}" for note in _findings.notes(evaluation)))


def plan_view(plan: Plan, asked: TrainingSpec) -> RenderableType:
    """The resolved spec, the layers, what they cost, and what is probably not wished."""
    layers = table("Layers")
    for heading, justify in zip(
        _format.LAYER_HEADER, ("left", "left", "right", "right", "right"), strict=True
    ):
        layers.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for layer in plan.layers:
        name, kind, *numbers = _format.layer_row(layer)
        layers.add_row(f"[cyan]{escape(name)}", escape(kind), *numbers)
    layers.add_section()
    layers.add_row(
        "[bold]in all",
        "",
        "",
        f"[bold]{plan.parameters:,}",
        f"[bold]{_format.count(plan.forward_flops)}",
    )
    return Group(
        _settings(plan.spec, asked),
        "",
        layers,
        *(f"  {escape(note)}" for note in _format.plan_notes(plan)[1:]),
        "",
        _lints(plan),
    )


def workers_table(workers: Iterable[Worker]) -> Table:
    """A row per slot."""
    rows = table()
    for heading in ("host", "slot", "device"):
        rows.add_column(heading)
    rows.add_column("threads", justify="right")
    rows.add_column("memory", justify="right")
    rows.add_column("runs")
    for worker in workers:
        for slot in worker.slots:
            job = slot.training_job.rpartition("/")[2]
            rows.add_row(
                escape(worker.host),
                escape(slot.id),
                escape(slot.device_name),
                str(slot.threads),
                _format.size(slot.memory_bytes),
                f"[cyan]{escape(job)}[/] attempt {slot.attempt}" if job else "[dim]free",
            )
    return rows


def datasets_table(datasets: Iterable[Dataset]) -> Table:
    """A row per data set."""
    rows = table()
    for heading in ("data set", "owner", "task", "sample"):
        rows.add_column(heading)
    for heading in ("outputs", "samples", "test", "size"):
        rows.add_column(heading, justify="right")
    for dataset in datasets:
        rows.add_row(
            f"[bold]{escape(dataset.id)}",
            owner_of(dataset),
            dataset.task,
            _format.shape(dataset.input_shape),
            str(dataset.outputs),
            f"{dataset.samples:,}",
            f"{dataset.test_samples:,}" if dataset.test_samples else "[dim]split off",
            _format.size(dataset.size_bytes),
        )
    return rows


def event_line(event: Event) -> Text:
    """One event of a journal."""
    style = _EVENT_STYLES.get(event.kind, "dim")
    return Text.assemble(
        (f"{event.sequence:>5}  {event.time.astimezone():%H:%M:%S}  ", "dim"),
        (f"{event.kind:<10}  ", style),
        (str(event.payload), style if style != "dim" else ""),
    )


def _facts(job: TrainingJob) -> Iterator[tuple[str, str]]:
    yield "name", escape(job.name)
    yield "owner", owner_of(job)
    yield "state", _state(job.state)
    if job.progress is not None and job.state not in (State.SUCCEEDED, State.CANCELLED):
        yield "progress", escape(str(job.progress))
    if job.error is not None:
        yield "error", f"[red]{escape(str(job.error))}"
    yield "experiment", escape(job.experiment)
    yield "MLflow run", escape(job.mlflow_run_id or "-")
    if job.labels:
        yield "labels", escape(", ".join(f"{key}={value}" for key, value in job.labels.items()))
    yield "priority", str(job.priority)
    yield "attempt", str(job.attempt)
    yield "created", _time(job.create_time)
    if job.start_time is not None:
        yield "started", _time(job.start_time)
    if job.end_time is not None:
        yield "ended", _time(job.end_time)
    yield "spec", f"{escape(job.spec.data.dataset)}, digest {job.spec_digest[:12]}"


def _settings(spec: TrainingSpec, asked: TrainingSpec) -> RenderableType:
    """Every setting by its dotted name; those that were asked for stand out from the defaults."""
    given = dict(_flat(asked.model_dump(exclude_unset=True)))
    cells = []
    for name, value in _flat(spec.model_dump()):
        style = "bold" if name in given else "dim"
        cells.append(Text.assemble((f"{name} ", style), (_value(value), f"{style} cyan")))
    return Panel(
        Columns(cells, padding=(0, 3), column_first=True),
        title="[bold]Settings[/] [dim](bold: given, dim: default)",
        title_align="left",
        border_style="dim",
    )


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _value(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return (
            f"{len(value)} layers" if value and isinstance(value[0], Mapping) else str(list(value))
        )
    return f"{value:g}" if isinstance(value, float) else str(value)


def _lints(plan: Plan) -> RenderableType:
    if not plan.lints:
        return "[green]✓[/] Nothing to object to."
    return Group(
        *(
            Padding(
                f"[yellow]⚠ {escape(lint.code)}[/]  [bold]{escape(lint.field)}[/]\n  {escape(lint.message)}",
                (0, 0, 1, 0),
            )
            for lint in plan.lints
        )
    )


def _state(state: str) -> str:
    return f"[{_STATE_STYLES.get(state, 'white')}]{escape(state)}[/]"


def _epochs(job: TrainingJob) -> str:
    total = job.spec.optimization.epochs
    done = (
        len(job.evaluation.history) if job.evaluation else job.progress.epoch if job.progress else 0
    )
    filled = round(10 * done / total)
    return f"[cyan]{'━' * filled}[/][dim]{'─' * (10 - filled)}[/] {done}/{total}"


def _score(evaluation: Evaluation | None) -> str:
    if evaluation is None:
        return "[dim]-"
    test = evaluation.test
    return f"{test.accuracy:.4f}" if test.accuracy is not None else f"R² {_format.number(test.r2)}"


def _time(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"


def _ago(moment: datetime) -> str:
    seconds = (datetime.now(UTC) - moment).total_seconds()
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return "just now"
