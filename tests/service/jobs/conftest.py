"""A running service on a database of its own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.service.jobs.bench import Bench

from dropnorm_service.store import SqlJobStore


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlJobStore]:
    async with await SqlJobStore.open(f"sqlite:///{tmp_path}/jobs.db") as store:
        yield store


@pytest.fixture
async def bench(store: SqlJobStore, tmp_path: Path) -> AsyncIterator[Bench]:
    """Two CPU slots, no GPU."""
    bench = Bench(store, tmp_path / "jobs")
    await bench.service.start()
    yield bench
    await bench.service.stop(grace=0.0)
