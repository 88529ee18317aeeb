"""The server's end of a real mirror process: an answer always belongs to the question."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from mlflow import MlflowClient
from tests.service.tracking.page import free_port
from tests.service.tracking.story import Story

from dropnorm_service.jobs.errors import StoreUnavailable
from dropnorm_service.tracking import TrackingConfig
from dropnorm_service.tracking.errors import MlflowUnavailable
from dropnorm_service.tracking.messages import Batch, JobContext, Role, RunMade, Setup
from dropnorm_service.tracking.process import MirrorProcess, ProcessEnded

OnRun = Callable[[RunMade], Awaitable[None]]
Start = Callable[[TrackingConfig, OnRun], AbstractAsyncContextManager[MirrorProcess]]


@pytest.fixture
def start() -> Start:
    """Makes a process that writes runs, and ends it."""

    @asynccontextmanager
    async def run(config: TrackingConfig, on_run: OnRun) -> AsyncIterator[MirrorProcess]:
        process = MirrorProcess(Setup.of(Role.RUNS, config), on_run)
        try:
            yield process
        finally:
            await process.close()

    return run


async def nothing(run: RunMade) -> None:
    """What is done about a run where a test is about something else."""


async def batch(story: Story, job_id: str) -> Batch:
    job = await story.job(job_id)
    events = [e for e in await story.store.events(job_id, after=0, limit=100) if e.attempt]
    return Batch(
        events=tuple(events), jobs={job.name: JobContext(job=job, folder=story.folder_of(job_id))}
    )


async def test_a_run_that_cannot_be_recorded_is_told_again_and_no_answer_comes_early(
    story: Story, config: TrackingConfig, client: MlflowClient, start: Start
):
    told: list[str] = []

    async def record(run: RunMade) -> None:
        told.append(run.run_id)
        if len(told) == 1:
            raise StoreUnavailable("the disk is full")

    await story.submit("told")
    await story.start("told")
    async with start(config, record) as process:
        with pytest.raises(StoreUnavailable):
            await process.deliver(await batch(story, "told"))
        for epoch in (1, 2, 3):
            await story.train("told", [epoch])
            await process.deliver(await batch(story, "told"))
            points = client.get_metric_history(told[0], "train_loss")
            assert [point.step for point in points] == list(range(1, epoch + 1))
            assert told == [told[0]] * (epoch + 1)


async def test_a_reason_as_long_as_an_address_is_cut(
    story: Story, config: TrackingConfig, start: Start
):
    await story.submit("waits")
    await story.start("waits")
    away = TrackingConfig.resolve(config.folder, f"http://127.0.0.1:{free_port()}/{'a' * 70_000}")
    async with start(away, nothing) as process:
        with pytest.raises(MlflowUnavailable, match="the run of trainingJobs/waits"):
            await process.deliver(await batch(story, "waits"))
        assert process.running


@pytest.mark.parametrize("said", ["'hello'", "'{}'", "'a' * 70_000"])
async def test_a_process_that_cannot_be_understood_is_ended(
    said: str,
    tmp_path: Path,
    config: TrackingConfig,
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
):
    stub = tmp_path / "python"
    stub.write_text(f"#!{sys.executable}\nimport sys\nprint({said}, flush=True)\nsys.stdin.read()")
    stub.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(stub))
    async with start(config, nothing) as process:
        with pytest.raises(ProcessEnded, match="its reply cannot be read"):
            await process.prepare()
        assert not process.running


async def test_a_module_in_the_working_folder_is_not_run(
    tmp_path: Path, config: TrackingConfig, start: Start, monkeypatch: pytest.MonkeyPatch
):
    work = tmp_path / "work"
    work.mkdir()
    (work / "mlflow.py").write_text("raise SystemExit('a module of somebody else')")
    monkeypatch.chdir(work)
    async with start(config, nothing) as process:
        await process.prepare()
