"""What is read at a scrape, and cannot always be."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.service.jobs.conftest import store
from tests.service.observability.scrapes import Scrape

from dropnorm_service.observability.metrics import Metrics
from dropnorm_service.observability.readings import Sources
from dropnorm_service.store import SqlJobStore

__all__ = ["store"]


async def test_what_cannot_be_read_hides_nothing_else_and_is_told_once(
    store: SqlJobStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "data"
    metrics = Metrics()
    metrics.read_from(
        Sources(
            ledger=store,
            slots=lambda: (),
            worker_restarts=lambda: {"standby": 3},
            audits_lost=lambda: 0,
            mirrors=(),
            data_dir=folder,
        )
    )

    async def scrape() -> Scrape:
        _, page = await metrics.exposition("")
        return Scrape(page.decode())

    for _ in range(2):
        without = await scrape()
        assert without.value("dropnorm_worker_restarts_total") == 3
        assert "dropnorm_disk_free_bytes" not in without.names()
    [record] = caplog.records
    assert "the metrics of the disk cannot be read" in record.getMessage()

    folder.mkdir()
    assert (await scrape()).value("dropnorm_disk_free_bytes") > 0
    folder.rmdir()
    await scrape()
    assert len(caplog.records) == 2
