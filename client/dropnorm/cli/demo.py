"""`dropnorm demo`: one network, four ways to train it, several seeds, and what came of it."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from dropnorm._progress import Show, display
from dropnorm.cli.render import stdout, table
from dropnorm.client import Client
from dropnorm.embedded import LocalService, local
from dropnorm.job_handle import JobHandle
from dropnorm.results import Evaluation, _format
from dropnorm.spec import (
    MLP,
    Adam,
    BatchNorm,
    Compute,
    Data,
    Dropout,
    Optimization,
    Regularization,
    TrainingSpec,
)

# Settings that were tried out on this data before, over all seeds; usual ones for layers of this width.
_DROPOUT = Dropout(rate=0.3)
_BATCH_NORM = BatchNorm()

WAYS: Mapping[str, Regularization] = {
    "plain": Regularization(),
    "dropout": Regularization(dropout=_DROPOUT),
    "batch norm": Regularization(batch_norm=_BATCH_NORM),
    "both": Regularization(dropout=_DROPOUT, batch_norm=_BATCH_NORM),
}

_CHART_DPI = 150
# Exporting a model for MLflow takes seconds each; the runs of the last jobs are finished while the service ends.
_GRACE = 180.0


@dataclass(frozen=True)
class Task:
    """What the four ways are compared on. Few training samples, as that is where regularisation matters."""

    title: str
    data: Data
    optimization: Optimization

    def spec(self, regularization: Regularization, seed: int) -> TrainingSpec:
        """One training. On the CPU: for so small a network a GPU is only a detour."""
        return TrainingSpec(
            architecture=MLP(hidden=(128, 64), activation="relu"),
            regularization=regularization,
            optimization=self.optimization,
            data=self.data,
            compute=Compute(device="cpu"),
            seed=seed,
        )


DIGITS = Task(
    "scikit-learn's digits, 500 of them to train on",
    # Large splits to measure on: with few samples in them chance would drown the differences.
    Data(dataset="digits", train_samples=500, validation_share=0.4, test_share=0.4),
    Optimization(optimizer=Adam(lr=1e-3), epochs=100, batch_size=32),
)

MNIST = Task(
    "MNIST, 5,000 of its digits to train on",
    Data(dataset="mnist", train_samples=5_000),
    Optimization(optimizer=Adam(lr=1e-3), epochs=20, batch_size=128),
)


def run_demo(*, mnist: Path | None, data_dir: Path, seeds: int) -> None:
    """Train every way with seeds 0, 1, 2 and so on, all at once, and show what came of it.

    Args:
        mnist: folder with MNIST's four files; None: digits, which need no file.
        data_dir: folder of the service's data and of the chart.
        seeds: repetitions of each way.
    """
    if mnist is not None and not mnist.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(mnist))
    task = DIGITS if mnist is None else MNIST
    data_dir.mkdir(parents=True, exist_ok=True)
    _introduce(task, seeds)
    with stdout.status("Starting a service of its own ..."):
        service = _start(data_dir, mnist)
    with service:
        started = time.perf_counter()
        jobs = _train_all(service, task, seeds)
        took = time.perf_counter() - started
        results = {way: [handle.result() for handle in handles] for way, handles in jobs.items()}
        stdout.print(_comparison(results, seeds))
        stdout.print(f"[dim]{len(WAYS) * seeds} trainings in {_format.seconds(took)}.")
        chart = _draw(results, task, data_dir)
        stdout.print(f"Learning curves: [bold]{escape(str(chart))}", soft_wrap=True)
        experiment = _experiment_id(jobs)
        with stdout.status("MLflow gets the last models and pictures ..."):
            service.close()
    _say_where(data_dir, experiment)


def _introduce(task: Task, seeds: int) -> None:
    stdout.print(
        Panel(
            "input-128-64-10 with ReLU, trained four ways: [bold]plain[/], with [bold]dropout[/] "
            f"(rate {_DROPOUT.rate:g}), with [bold]batch norm[/], with [bold]both[/].\n"
            f"[dim]{escape(task.title)}; {task.optimization.epochs} epochs of Adam; "
            f"seeds 0 to {seeds - 1}; the same splits for all four.",
            title="[bold]dropnorm demo",
            title_align="left",
            expand=False,
        )
    )


def _start(data_dir: Path, mnist: Path | None) -> LocalService:
    # So small a network gains nothing from a second thread, and much from a neighbour.
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return local(
        data_dir,
        cpu_slots=min(cores, 16),
        threads_per_slot=1,
        grace=_GRACE,
        datasets_dir=mnist,
    )


def _train_all(client: Client, task: Task, seeds: int) -> dict[str, list[JobHandle]]:
    """Every job, ended. They are queued seed by seed, so that each way advances."""
    jobs: dict[str, list[JobHandle]] = {way: [] for way in WAYS}
    with display() as show, ThreadPoolExecutor(max_workers=len(WAYS) * seeds) as threads:
        followers = []
        for seed in range(seeds):
            for way, regularization in WAYS.items():
                job = client.train(
                    task.spec(regularization, seed),
                    name=f"{way}, seed {seed}",
                    experiment=f"demo {task.data.dataset}",
                    labels={"way": way.replace(" ", "-"), "seed": str(seed)},
                )
                jobs[way].append(job)
                show(job.snapshot)
                followers.append(threads.submit(_follow, job, show))
        for follower in followers:
            follower.result()
    return jobs


def _follow(job: JobHandle, show: Show) -> None:
    for event in job.watch():
        show(job.snapshot, event)


@dataclass(frozen=True)
class _Column:
    """What the table says about each way."""

    heading: str
    measure: Callable[[Evaluation], float]
    digits: int
    best: Callable[[Iterable[float]], float] | None = None
    deviates: bool = True


_COLUMNS = (
    _Column(
        "validation\naccuracy, %", lambda each: 100 * (each.validation.accuracy or 0.0), 2, max
    ),
    _Column("test\naccuracy, %", lambda each: 100 * (each.test.accuracy or 0.0), 2, max),
    _Column("generalization\ngap, %", lambda each: 100 * each.generalization_gap, 2, min),
    _Column("epochs\nto best", lambda each: each.best_epoch, 0),
    _Column("seconds", lambda each: each.cost.seconds, 1, deviates=False),
)


def _comparison(results: Mapping[str, Sequence[Evaluation]], seeds: int) -> Table:
    """A row per way: mean and deviation over the seeds; the best of a column stands out."""
    rows = table(f"Mean ± standard deviation over {seeds} seeds" if seeds > 1 else "One seed")
    rows.add_column("", no_wrap=True)
    cells = []
    for column in _COLUMNS:
        rows.add_column(column.heading, justify="right", no_wrap=True)
        spreads = [
            _format.mean_and_deviation([column.measure(each) for each in evaluations])
            for evaluations in results.values()
        ]
        winner = column.best(mean for mean, _ in spreads) if column.best else None
        deviates = column.deviates and seeds > 1
        cells.append([_cell(*spread, column.digits, winner, deviates) for spread in spreads])
    for way, *row in zip(results, *cells, strict=True):
        rows.add_row(f"[bold]{way}", *row)
    return rows


def _cell(mean: float, deviation: float, digits: int, winner: float | None, deviates: bool) -> str:
    text = f"{mean:.{digits}f}"
    if mean == winner:
        text = f"[bold green]{text}[/]"
    return f"{text} [dim]± {deviation:.{digits}f}[/]" if deviates else text


def _draw(results: Mapping[str, Sequence[Evaluation]], task: Task, data_dir: Path) -> Path:
    from dropnorm.results._plot import plot_comparison

    path = data_dir / f"learning-curves-{task.data.dataset}.png"
    title = f"{task.data.dataset}: what dropout and batch norm do for input-128-64-10"
    plot_comparison(results, title=title).savefig(path, dpi=_CHART_DPI)
    return path


def _experiment_id(jobs: Mapping[str, Sequence[JobHandle]]) -> str | None:
    """MLflow's id of the experiment; None when MLflow has no run yet."""
    handles = (handle.refresh() for group in jobs.values() for handle in group)
    found = (handle.snapshot.mlflow_experiment_id for handle in handles)
    return next((experiment for experiment in found if experiment is not None), None)


def _say_where(data_dir: Path, experiment: str | None) -> None:
    # By itself MLflow opens an experiment on a page about language models; this one has charts of the runs.
    charts = f"/#/experiments/{experiment}/runs?compareRunsMode=CHART&workflowType=machine_learning"
    page = f"http://127.0.0.1:5000{charts if experiment else ''}"
    command = shlex.join([_own_command(), "ui", "--data-dir", str(data_dir)])
    stdout.print(
        f"MLflow's page on these runs: [bold]{escape(command)}[/]  and open {page}",
        soft_wrap=True,
    )


def _own_command() -> str:
    """What a reader's shell calls this very program: a virtual environment need not be on its PATH."""
    own = Path(sys.executable).with_name("dropnorm")
    found = shutil.which("dropnorm")
    if found is not None and own.exists() and Path(found).samefile(own):
        return "dropnorm"
    try:
        return str(own.relative_to(Path.cwd()))
    except ValueError:
        return str(own)
