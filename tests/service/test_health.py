"""Health is what a look at the store and the fork server finds, never older than a few seconds."""

import asyncio
import os
import signal
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dropnorm_service import health
from dropnorm_service.health import HealthWatch
from dropnorm_service.store import SqlJobStore
from dropnorm_service.workers import ForkServer


class Reports:
    """What was reported last."""

    def __init__(self) -> None:
        self._healthy: bool | None = None
        self._news = asyncio.Event()

    def take(self, healthy: bool) -> None:
        self._healthy = healthy
        self._news.set()

    async def become(self, healthy: bool) -> None:
        async with asyncio.timeout(60):
            while self._healthy is not healthy:
                self._news.clear()
                await self._news.wait()


@pytest.fixture
async def forks() -> AsyncIterator[ForkServer]:
    async with ForkServer(preload=()) as forks:
        yield forks


@pytest.fixture
async def reports(
    tmp_path: Path, forks: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Reports]:
    monkeypatch.setattr(health, "_INTERVAL", 0.05)
    monkeypatch.setattr(health, "_LIMIT", 1.0)
    reports = Reports()
    async with await SqlJobStore.open(f"sqlite:///{tmp_path}/jobs.db") as store:
        watch = asyncio.create_task(HealthWatch(store, forks, reports.take).run())
        await reports.become(True)
        yield reports
        watch.cancel()
        await asyncio.wait({watch})


async def test_a_store_that_another_process_has_locked_is_no_good_health(
    reports: Reports, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)
    async with asyncio.timeout(60):
        # Only the first obstacle is told, and on a slow machine that may once be the fork server.
        while "the store could not be written within 1 seconds" not in caplog.text:
            other.execute("BEGIN IMMEDIATE")
            await reports.become(False)
            other.execute("ROLLBACK")
            await reports.become(True)
    other.close()


async def test_a_fork_server_that_is_stopped_is_no_good_health(
    reports: Reports, forks: ForkServer
) -> None:
    assert forks.pid is not None
    os.kill(forks.pid, signal.SIGSTOP)
    await reports.become(False)
    os.kill(forks.pid, signal.SIGCONT)
    await reports.become(True)


async def test_nor_is_one_that_was_killed_until_another_is_ready(
    reports: Reports, forks: ForkServer
) -> None:
    assert forks.pid is not None
    os.kill(forks.pid, signal.SIGKILL)
    await reports.become(False)
    await reports.become(True)
