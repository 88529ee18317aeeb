"""`python -m tests.benchmarks [--only NAME] [--quick]`: measure and print one table."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Callable, Iterator, Mapping

from rich.console import Console
from rich.table import Table
from tests.benchmarks import (
    calls,
    convolutions,
    experiments,
    footprint,
    latency,
    load,
    scale,
    sequences,
    soak,
    throughput,
    watchers,
)
from tests.benchmarks.rows import Row

BENCHMARKS: Mapping[str, Callable[[bool], Iterator[Row]]] = {
    "latency": latency.measure,
    "throughput": throughput.measure,
    "footprint": footprint.measure,
    "get": calls.measure_get,
    "create": calls.measure_create,
    "watchers": watchers.measure,
    "load": load.measure,
    "soak": soak.measure,
    "scale": scale.measure,
    "convolutions": convolutions.measure,
    "batch_norm": experiments.measure_batch_norm,
    "dropout": experiments.measure_dropout,
    "families": experiments.measure_families,
    "autoencoder": experiments.measure_autoencoder,
    "adversarial": experiments.measure_adversarial,
    "pairs": sequences.measure_pairs,
    "masked": sequences.measure_masked,
}

_REACHED = {True: "[green]yes[/]", False: "[red]no[/]", None: "[yellow]not measured[/]"}


def main() -> None:
    """Run the benchmarks that the command line names, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--only", choices=BENCHMARKS, action="append", help="may be repeated")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, a smaller store")
    options = parser.parse_args()

    table = Table(title=f"dropnorm on {os.cpu_count()} cores, Python {platform.python_version()}")
    for header in ("what", "measured", "to reach", "reached", "how"):
        table.add_column(header, overflow="fold")
    progress = Console(stderr=True)
    for name in options.only or BENCHMARKS:
        with progress.status(f"measuring {name}"):
            for row in BENCHMARKS[name](options.quick):
                table.add_row(row.name, row.measured, row.target, _REACHED[row.reached], row.note)
    Console(width=None if progress.is_terminal else 160).print(table)


if __name__ == "__main__":
    main()
