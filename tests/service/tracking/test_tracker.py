"""The tracker with its real processes: nothing is lost, nothing is doubled, nobody waits."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import psutil
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from tests.service.tracking.story import Story, a_spec, epoch, moved

from dropnorm.results import EpochCompleted, State
from dropnorm_service.tracking import consumer


def runs(client: MlflowClient) -> dict[str, Run]:
    found = client.get_experiment_by_name("digits")
    listed = client.search_runs([found.experiment_id]) if found else []
    assert len({run.info.run_name for run in listed}) == len(listed)
    return {run.info.run_name: run for run in listed}


def steps(client: MlflowClient, run: Run, metric: str = "train_loss") -> list[int]:
    return [point.step for point in client.get_metric_history(run.info.run_id, metric)]


def mirror_processes() -> Sequence[psutil.Process]:
    return [
        child
        for child in psutil.Process().children()
        if "dropnorm_service.tracking.mirror" in child.cmdline()
    ]


async def test_a_job_gets_its_run_id_while_it_trains(story: Story, tracked, client: MlflowClient):
    async with tracked() as tracker:
        await story.submit("live")
        await story.start("live")
        tracker.notify()
        job = await story.has_run("live")
        assert job.mlflow_run_id is not None
        assert client.get_run(job.mlflow_run_id).info.status == "RUNNING"
        assert client.get_run(job.mlflow_run_id).info.experiment_id == job.mlflow_experiment_id

        await story.train("live", [1, 2, 3])
        await story.tell("live", moved(State.CANCELLING), moved(State.CANCELLED))
        await tracker.caught_up()
        feed = await story.store.feed(after=0, limit=100)
        assert tracker.position == feed[-1][0]
    run = runs(client)["live"]
    assert run.info.status == "KILLED"
    assert steps(client, run) == [1, 2, 3]
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["spec.yaml"]
    assert not mirror_processes()


async def test_a_stopped_tracker_goes_on_where_it_was(story: Story, tracked, client: MlflowClient):
    await story.submit("stays")
    await story.start("stays")
    async with tracked() as tracker:
        await tracker.caught_up()
    await story.train("stays", [1, 2])
    async with tracked() as tracker:
        await tracker.stop(grace=30)
    assert steps(client, runs(client)["stays"]) == [1, 2]


async def test_a_killed_process_and_a_lost_cursor_double_nothing(
    story: Story, tracked, client: MlflowClient
):
    async with tracked() as tracker:
        await story.submit("survives")
        await story.start("survives")
        await story.train("survives", [1, 2])
        await tracker.caught_up()
        for process in mirror_processes():
            process.kill()
        await story.train("survives", [3])
        await tracker.caught_up()
        assert steps(client, runs(client)["survives"]) == [1, 2, 3]

    await story.store.move_cursor("mlflow", 0)
    async with tracked() as tracker:
        await story.tell("survives", moved(State.CANCELLING), moved(State.CANCELLED))
        await tracker.caught_up()
    assert steps(client, runs(client)["survives"]) == [1, 2, 3]
    assert runs(client)["survives"].info.status == "KILLED"


@pytest.mark.slow
async def test_an_event_that_kills_the_process_is_left_out(
    story: Story,
    tracked,
    client: MlflowClient,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(consumer, "_SHORTEST_RETRY", 0.01)
    await story.submit("deadly")
    await story.start("deadly")
    huge = epoch(a_spec(), 1).metrics.model_copy(update={"step": 10**400})  # no float is as large
    await story.tell("deadly", EpochCompleted(metrics=huge))
    await story.train("deadly", [2])
    await story.submit("next")
    await story.start("next")
    async with tracked() as tracker:
        await tracker.caught_up()
    assert steps(client, runs(client)["deadly"]) == [2]
    assert runs(client)["next"].info.status == "RUNNING"
    assert "event 4 of trainingJobs/deadly is left out" in caplog.text


def test_the_server_side_loads_neither_mlflow_nor_torch():
    code = (
        "import sys, dropnorm_service.tracking, dropnorm_service.tracking.ui\n"
        "heavy = {'mlflow', 'torch', 'numpy', 'pandas', 'matplotlib', 'sqlalchemy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == "[]"
