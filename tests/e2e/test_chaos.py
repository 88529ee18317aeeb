"""The short form of `make chaos`: a service amidst faults keeps every promise."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.chaos.chaos import calm, storm
from tests.chaos.databases import sqlite
from tests.figures import Figures

SEED = 4
JOBS = 16

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


async def test_every_promise_holds_in_a_storm(tmp_path: Path, figures: Figures):
    report = await storm(
        tmp_path / "storm",
        seed=SEED,
        jobs=JOBS,
        database="SQLite",
        open_database=sqlite,
        expected=await calm(tmp_path, mark=f"{tmp_path}/calm"),
        say=print,
    )

    for name, number in report.counts.items():
        figures(f"chaos, seed {SEED}", f"{name:<24} {number:>8,}")
    assert report.findings.none, report.findings.lines()
    assert sum(report.ends.values()) == JOBS
    assert sum(report.faults.values()) > 0
