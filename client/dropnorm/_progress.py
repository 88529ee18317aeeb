"""Progress of one or many jobs on a terminal or in a notebook: bars where rich is installed, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from dropnorm.results import (
    EpochCompleted,
    Event,
    Progressed,
    State,
    StateChanged,
    TrainingJob,
    Warned,
)
from dropnorm.results._format import count

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID


class Show(Protocol):
    """Takes a job as it is now, and the event that made it so."""

    def __call__(self, job: TrainingJob, event: Event | None = None) -> None:
        """Show it."""


_SECONDS_BETWEEN_LINES = 1.0
_FINAL = (State.SUCCEEDED, State.FAILED, State.CANCELLED)


@contextmanager
def display(shown: bool = True) -> Iterator[Show]:
    """A display that lives as long as the block. It takes as many jobs as it is shown, a bar each."""
    if not shown:
        yield _nothing
        return
    try:
        from rich.console import Console
    except ImportError:
        yield _Lines()
        return
    console = Console(stderr=True)
    if not (console.is_terminal or console.is_jupyter):
        yield _Lines()
        return
    with _bars(console) as progress:
        yield _Bars(progress)


def _nothing(job: TrainingJob, event: Event | None = None) -> None:
    """Show nothing."""


class _Lines:
    """A line per change of state and per warning, and for each job at most one per second with its newest epoch."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def __call__(self, job: TrainingJob, event: Event | None = None) -> None:
        payload = event.payload if event else None
        if isinstance(payload, StateChanged | Warned) or (
            isinstance(payload, EpochCompleted) and self._due(job)
        ):
            print(f"{job.display_name}: {payload}", file=sys.stderr, flush=True)

    def _due(self, job: TrainingJob) -> bool:
        now = time.monotonic()
        due = now - self._last.get(job.name, float("-inf")) >= _SECONDS_BETWEEN_LINES
        if due:
            self._last[job.name] = now
        return due


class _Bars:
    """A bar per job."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, job: TrainingJob, event: Event | None = None) -> None:
        from rich.markup import escape

        task = self._tasks.get(job.name)
        if task is None:
            task = self._tasks[job.name] = self._add(job)
        if event is not None and isinstance(event.payload, Warned):
            self._progress.console.print(
                f"[yellow]{escape(f'{job.display_name}: {event.payload}')}"
            )
        note = _note(job, event)
        if note:
            self._progress.update(task, note=note)
        if job.progress is not None:
            self._progress.start_task(task)  # without effect when it has been started
            self._progress.update(
                task,
                completed=job.progress.step,
                total=max(job.progress.steps, 1),
                epoch=job.progress.epoch,
            )
        if job.state in _FINAL:
            self._progress.stop_task(task)

    def _add(self, job: TrainingJob) -> TaskID:
        from rich.markup import escape

        epochs = job.spec.optimization.epochs
        return self._progress.add_task(
            escape(job.display_name), start=False, total=1, epochs=epochs, epoch=0, note=""
        )


def _note(job: TrainingJob, event: Event | None) -> str:
    """What stands beside the bar, in rich's markup; empty: what stood there before."""
    from rich.markup import escape

    if job.state is State.SUCCEEDED and job.evaluation is not None:
        return f"[green]✓ {_score('test', job.evaluation.test.accuracy, job.evaluation.test.loss)}"
    if job.state is State.FAILED:
        return f"[red]✗ {escape(job.error.message if job.error else 'failed')}"
    if job.state is not State.RUNNING:
        return f"[dim]{escape(job.state)}"
    match event.payload if event else None:
        case EpochCompleted(metrics=metrics):
            score = _score("validation", metrics.validation_accuracy, metrics.validation_loss)
            return f"{score}  [dim]{count(metrics.samples_per_second)} samples/s"
        case Progressed(progress=progress) if progress.epoch == 0:
            return f"[dim]{escape(progress.phase.replace('_', ' '))}"
    return ""


def _score(split: str, accuracy: float | None, loss: float) -> str:
    return f"{split} loss {loss:.4g}" if accuracy is None else f"{split} accuracy {accuracy:.4f}"


def _bars(console: Console) -> Progress:
    from rich.progress import (
        BarColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress_bar import ProgressBar

    class Bar(BarColumn):
        """Still, not pulsing, while a job waits for its turn."""

        def render(self, task: Task) -> ProgressBar:
            bar = super().render(task)
            bar.pulse = False
            return bar

    columns: list[ProgressColumn] = [
        TextColumn("[bold]{task.description}"),
        Bar(bar_width=28, complete_style="cyan", finished_style="green"),
        TextColumn("epoch {task.fields[epoch]:>3}/{task.fields[epochs]}", style="cyan"),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        TextColumn("{task.fields[note]}"),
    ]
    return Progress(*columns, console=console)
