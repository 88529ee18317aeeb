"""The mirror through long trouble with a real tracking server: nobody else notices, and in the end all is there once.

Between two tries the mirror waits up to 5 seconds, so that an hour of trouble comes to some 720 tries, and fewer where
each takes its time. Here it waits for milliseconds and makes as many tries as a test has time for: what grows with a
try would show, and that the wait stands as many as there may be is a test of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest
from tests.chaos.promises import Findings
from tests.chaos.runs import Runs
from tests.chaos.tracking import Front, Trouble
from tests.ports import free_port
from tests.service.tracking.page import mlflow_server
from tests.service.tracking.story import Story, a_spec, moved
from tests.service.tracking.test_tracker import mirror_processes

from dropnorm.results import State
from dropnorm_service.tracking import TrackingConfig, consumer, tracker

_TRIES = {
    Trouble.DOWN: 100,
    Trouble.BROKEN: 40,
    Trouble.READ_ONLY: 80,
    Trouble.DEAF: 15,
    Trouble.SLOW: 1,
}
_GROWTH = 20 * 2**20

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture
def server(config: TrackingConfig, tmp_path: Path) -> Iterator[int]:
    with mlflow_server(config, port := free_port(), tmp_path / "server.log"):
        yield port


@pytest.fixture
async def front(server: int) -> AsyncIterator[Front]:
    async with Front(server, delay=0.3) as front:
        yield front


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer, "_SHORTEST_RETRY", 0.001)
    monkeypatch.setattr(tracker, "_RUNS_RETRY", 0.001)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@pytest.mark.usefixtures("no_waiting")
async def test_long_trouble_of_every_kind_leaves_no_trace(
    story: Story, tracked, front: Front, config: TrackingConfig
):
    remote = TrackingConfig.resolve(config.folder, front.url)
    async with tracked(remote) as mirror:
        await story.submit("through", a_spec(epochs=len(_TRIES) + 1))
        await story.start("through")
        await story.train("through", [1])
        await mirror.caught_up()
        memory = _memory()
        for epoch, (trouble, tries) in enumerate(_TRIES.items(), start=2):
            front.trouble = trouble
            await story.submit(within := f"within-{trouble}")
            await story.start(within)
            await story.tell(within, moved(State.CANCELLED))
            mirror.notify([])
            await _tried(front, trouble, tries)
            await story.train("through", [epoch])
            mirror.notify([])
            await _tried(front, trouble, 2 * tries)
        assert _memory() - memory < _GROWTH
        await story.succeed("through")
        front.trouble = Trouble.NONE
        await mirror.caught_up()

    findings = Findings()
    journals = {
        f"trainingJobs/{name}": await story.store.events(name, after=0, limit=1000)
        for name in ("through", *(f"within-{trouble}" for trouble in _TRIES))
    }
    Runs(config.folder / "mlflow.db").check(journals, findings)
    [only] = findings.broken
    assert "its model is failed" in only, "a story has none"


def test_the_wait_stands_any_number_of_failures(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(consumer, "_SHORTEST_RETRY", 0.5)
    delays = [consumer.retry_delay(failures, 5.0) for failures in (0, 1, 3, 4, 10_000)]
    assert delays == [0.5, 1.0, 4.0, 5.0, 5.0]


async def _tried(front: Front, trouble: Trouble, times: int) -> None:
    async with asyncio.timeout(500):
        while front.spoilt[trouble] < times:  # noqa: ASYNC110 - a server has no event for it
            await asyncio.sleep(0.01)


def _memory() -> int:
    """Resident bytes of the mirror's processes and of this one, in which the consumers are."""
    processes = [*mirror_processes(), psutil.Process()]
    return sum(process.memory_info().rss for process in processes)
