"""`python -m tests.chaos [--seed N] [--jobs N] [--store NAME]`: chaos, and a table of what was done and found."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table
from tests.chaos.chaos import Report, calm, storm
from tests.chaos.databases import DATABASES


def main() -> int:
    """Run a round on each store; 1 when a promise does not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="absent: one is drawn, and printed")
    parser.add_argument("--jobs", type=int, default=300, help="in all rounds together")
    parser.add_argument("--store", choices=DATABASES, action="append", help="absent: all")
    parser.add_argument("--keep", type=Path, help="folder for data and logs; absent: thrown away")
    options = parser.parse_args()
    seed = secrets.randbelow(10**6) if options.seed is None else options.seed
    with tempfile.TemporaryDirectory(prefix="dropnorm-chaos-") as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        reports = asyncio.run(_rounds(folder, seed, options.jobs, options.store))
    _print(reports, seed, options.jobs)
    return 0 if all(report.findings.none for report in reports) else 1


async def _rounds(folder: Path, seed: int, jobs: int, stores: list[str] | None) -> list[Report]:
    console = Console(stderr=True)
    console.print("what each training comes to undisturbed")
    expected = await calm(folder, mark=str(folder))
    chosen = {name: DATABASES[name] for name in stores or DATABASES}
    reports = []
    for number, (name, open_database) in enumerate(chosen.items()):
        reports.append(
            await storm(
                folder / name.lower(),
                seed=seed + number,
                jobs=jobs // len(chosen),
                database=name,
                open_database=open_database,
                expected=expected,
                say=console.print,
            )
        )
    return reports


def _print(reports: list[Report], seed: int, jobs: int) -> None:
    console = Console(width=None if sys.stdout.isatty() else 100)
    table = Table(title=f"chaos, seed {seed}")
    table.add_column("")
    for report in reports:
        table.add_column(report.database, justify="right")
    for kind in dict.fromkeys(kind for report in reports for kind in report.faults):
        table.add_row(kind, *(str(report.faults.get(kind, "-")) for report in reports))
    table.add_section()
    for name in dict.fromkeys(name for report in reports for name in report.counts):
        table.add_row(name, *(str(report.counts.get(name, 0)) for report in reports))
    console.print(table)
    for report in reports:
        for line in report.findings.lines():
            console.print(f"{report.database}: {line}", style="red", markup=False, soft_wrap=True)
    console.print(f"again: make chaos SEED={seed} JOBS={jobs}")


if __name__ == "__main__":
    sys.exit(main())
