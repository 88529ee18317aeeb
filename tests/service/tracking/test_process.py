"""The server's end of a real mirror process: an answer always belongs to the question."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from mlflow import MlflowClient
from tests.chaos.tracking import Front, Trouble
from tests.ports import free_port
from tests.service.tracking.page import mlflow_server
from tests.service.tracking.story import Story

from dropnorm_service.jobs.errors import StoreUnavailable
from dropnorm_service.tracking import TrackingConfig
from dropnorm_service.tracking.errors import MlflowUnavailable
from dropnorm_service.tracking.messages import Batch, Done, JobContext, Role, RunMade, Setup
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


async def test_a_slow_mlflow_gets_a_batch_of_many_jobs_without_a_timeout(
    story: Story,
    config: TrackingConfig,
    client: MlflowClient,
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    jobs = [f"job-{number}" for number in range(4)]
    batches = []
    for job_id in jobs:
        await story.submit(job_id)
        await story.start(job_id)
        batches.append(await batch(story, job_id))
    everything = Batch(
        events=tuple(event for each in batches for event in each.events),
        jobs={name: context for each in batches for name, context in each.jobs.items()},
    )
    with mlflow_server(config, port := free_port(), tmp_path / "server.log"):
        async with (
            Front(port, delay=0.5) as front,
            start(TrackingConfig.resolve(config.folder, front.url), nothing) as process,
        ):
            await process.prepare()
            monkeypatch.setattr("dropnorm_service.tracking.process._REPLY_TIMEOUT", 10.0)
            front.trouble = Trouble.SLOW
            assert await process.deliver(everything) == Done()
            assert front.spoilt[Trouble.SLOW] * front.delay > 10.0
    [experiment] = client.search_experiments(filter_string="name = 'digits'")
    assert len(client.search_runs([experiment.experiment_id])) == len(jobs)


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
