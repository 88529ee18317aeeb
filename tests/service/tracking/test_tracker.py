"""The tracker with its real processes: nothing is lost, nothing is doubled, nobody waits."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from tests.service.tracking.story import Story, a_spec, epoch, moved

from dropnorm.results import EpochCompleted, Event, State
from dropnorm_service.tracking import TrackingConfig, consumer, tracker


def runs(client: MlflowClient) -> dict[str, Run]:
    found = client.get_experiment_by_name("digits")
    listed = client.search_runs([found.experiment_id]) if found else []
    assert len({run.info.run_name for run in listed}) == len(listed)
    return {run.info.run_name: run for run in listed}


def steps(client: MlflowClient, run: Run, metric: str = "train_loss") -> list[int]:
    return [point.step for point in client.get_metric_history(run.info.run_id, metric)]


def files(client: MlflowClient, job_id: str) -> list[str]:
    run = runs(client).get(job_id)
    return [file.path for file in client.list_artifacts(run.info.run_id)] if run else []


@contextlib.contextmanager
def in_database(config: TrackingConfig) -> Iterator[sqlite3.Connection]:
    """MLflow's own database, for what no client can do."""
    with contextlib.closing(sqlite3.connect(config.folder / "mlflow.db", timeout=60.0)) as database:
        yield database
        database.commit()


def no_metrics_for(config: TrackingConfig, run: Run) -> None:
    """From now on MLflow takes no metrics of one run, and all else."""
    with in_database(config) as database:
        database.execute(
            f"CREATE TRIGGER broken BEFORE INSERT ON metrics WHEN NEW.run_uuid = '{run.info.run_id}'"
            " BEGIN SELECT RAISE(ABORT, 'broken'); END"
        )


def metrics_again(config: TrackingConfig) -> None:
    with in_database(config) as database:
        database.execute("DROP TRIGGER broken")


async def news(story: Story, job_id: str, after: int = 0) -> Sequence[Event]:
    return await story.store.events(job_id, after=after, limit=100)


def mirror_processes() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if "dropnorm_service.tracking.mirror" in child.cmdline():
                found.append(child)
    return found


@pytest.fixture
def quick_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that dies is started again at once, and an event is given up after two deaths."""
    monkeypatch.setattr(consumer, "_SHORTEST_RETRY", 0.01)
    monkeypatch.setattr(consumer, "_LONGEST_RESTART", 0.01)
    monkeypatch.setattr(consumer, "_DEADLY", 2)


async def test_a_job_gets_its_run_while_it_trains_and_its_files_when_it_ends(
    story: Story, tracked, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tracker, "_ARTIFACT_IDLE_LIMIT", 0.1)
    async with tracked() as mirror:
        for job_id in ("one", "two"):
            await story.submit(job_id)
            await story.start(job_id)
            mirror.notify(await news(story, job_id))
            job = await story.has_run(job_id)
            assert job.mlflow_run_id is not None
            run = client.get_run(job.mlflow_run_id)
            assert run.info.status == "RUNNING"
            assert run.info.experiment_id == job.mlflow_experiment_id

            await story.train(job_id, [1, 2, 3])
            await story.tell(job_id, moved(State.CANCELLING), moved(State.CANCELLED))
            await mirror.caught_up()
            feed = await story.store.feed(after=0, limit=100)
            assert mirror.position == feed[-1][0]
            # The process for files has nothing more to do, and makes room until it has again.
            async with asyncio.timeout(60):
                while len(mirror_processes()) > 1:  # noqa: ASYNC110 - an ended process has no event
                    await asyncio.sleep(0.05)
    for run in runs(client).values():
        assert run.info.status == "KILLED"
        assert steps(client, run) == [1, 2, 3]
        assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["spec.yaml"]
    assert not mirror_processes()


async def test_curves_may_lag_but_beginning_and_end_of_a_job_do_not(
    story: Story, tracked, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(consumer, "_CURVES_LINGER", 3600.0)

    async def reached(said: Sequence[int], status: str) -> None:
        async with asyncio.timeout(60):
            while True:
                [run] = runs(client).values()
                if steps(client, run) == said and run.info.status == status:
                    return
                await asyncio.sleep(0.05)

    async with tracked() as mirror:
        await story.submit("one")
        last = (await story.start("one")).last_sequence
        mirror.notify(await news(story, "one"))
        await story.has_run("one")
        await mirror.caught_up()

        for number in (1, 2):
            told = await story.train("one", [number])
            mirror.notify(await news(story, "one", last))
            last = told.last_sequence
            await reached([1], "RUNNING")
        await asyncio.sleep(0.5)
        await reached([1], "RUNNING")

        await story.succeed("one")
        mirror.notify(await news(story, "one", last))
        await reached([1, 2], "FINISHED")


@pytest.mark.timeout(600)  # four starts of a process that loads MLflow
async def test_a_killed_process_a_stop_and_a_lost_cursor_lose_and_double_nothing(
    story: Story, tracked, client: MlflowClient
):
    async with tracked() as mirror:
        await story.submit("survives")
        await story.start("survives")
        await story.train("survives", [1, 2])
        await mirror.caught_up()
        for process in mirror_processes():
            process.kill()
        await story.train("survives", [3])
        await mirror.caught_up()
        assert steps(client, runs(client)["survives"]) == [1, 2, 3]

    await story.train("survives", [4])
    await story.store.move_cursor("mlflow", 0)
    async with tracked() as mirror:
        await mirror.stop(grace=300)
    assert steps(client, runs(client)["survives"]) == [1, 2, 3, 4]


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_job_that_mlflow_does_not_take_waits_and_the_others_go_on(
    story: Story,
    tracked,
    client: MlflowClient,
    config: TrackingConfig,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(consumer, "_SHORTEST_RETRY", 0.01)
    async with tracked() as mirror:
        await story.submit("bad")
        await story.start("bad")
        await mirror.caught_up()
        held = mirror.position
        no_metrics_for(config, runs(client)["bad"])
        await story.train("bad", [1, 2])
        await story.tell("bad", moved(State.CANCELLED))
        await story.submit("good")
        await story.start("good")
        await story.train("good", [1, 2, 3])
        await story.tell("good", moved(State.CANCELLED))
        mirror.notify(await news(story, "good"))
        while not files(client, "good"):  # noqa: ASYNC110 - a database has no event
            await asyncio.sleep(0.05)
        assert steps(client, runs(client)["good"]) == [1, 2, 3]
        assert runs(client)["good"].info.status == "KILLED"
        assert steps(client, runs(client)["bad"]) == []
        assert files(client, "bad") == []
        [writes, _] = mirror.consumers
        assert held <= mirror.position < held + 5
        assert writes.failed["unavailable"] > 0

        metrics_again(config)
        await mirror.caught_up()
        assert mirror.position == (await story.store.feed(after=0, limit=100))[-1][0]
        assert await story.store.cursor("mlflow") == mirror.position
    bad = runs(client)["bad"]
    assert steps(client, bad) == [1, 2]
    assert bad.info.status == "KILLED"
    assert files(client, "bad") == ["spec.yaml"]
    assert "dropnorm.mirror_error" not in bad.data.tags


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_run_that_mlflow_lost_is_made_anew_from_its_jobs_whole_journal(
    story: Story,
    tracked,
    client: MlflowClient,
    config: TrackingConfig,
    monkeypatch: pytest.MonkeyPatch,
):
    """MLflow is set back to before two jobs began: one goes on, one has ended."""
    monkeypatch.setattr(tracker, "_RUNS_PER_BATCH", 2)
    with contextlib.closing(sqlite3.connect(config.folder / "before.db")) as before:
        async with tracked() as mirror:
            await story.submit("first")
            await story.start("first")
            await mirror.caught_up()
            with in_database(config) as database:
                database.backup(before)
            for job_id in ("goes-on", "ended"):
                await story.submit(job_id)
                await story.start(job_id)
                await story.train(job_id, [1, 2])
            await story.tell("ended", moved(State.CANCELLED))
            await story.train("first", [1])
            await mirror.caught_up()
            lost = (await story.job("goes-on")).mlflow_run_id
            with in_database(config) as database:
                before.backup(database)

            await story.train("goes-on", [3])
            await mirror.caught_up()
            run = runs(client)["goes-on"]
            assert run.info.run_id == (await story.job("goes-on")).mlflow_run_id != lost
            assert run.info.status == "RUNNING"
            await story.tell("goes-on", moved(State.CANCELLED))
            await mirror.caught_up()
    assert runs(client).keys() == {"first", "goes-on"}
    run = runs(client)["goes-on"]
    assert steps(client, run) == [1, 2, 3]
    assert run.data.params["data.dataset"] == "digits"
    assert run.inputs is not None
    assert len(run.inputs.dataset_inputs) == 1
    assert run.info.status == "KILLED"
    assert files(client, "goes-on") == ["spec.yaml"]

    # As docs/operations.md says, all else comes back when the cursors are set back.
    assert steps(client, runs(client)["first"]) == []
    for cursor in ("mlflow", "mlflow-artifacts"):
        await story.store.move_cursor(cursor, 0)
    async with tracked() as mirror:
        await mirror.caught_up()
    assert runs(client).keys() == {"first", "goes-on", "ended"}
    assert steps(client, runs(client)["first"]) == [1]
    assert steps(client, runs(client)["ended"]) == [1, 2]
    assert steps(client, runs(client)["goes-on"]) == [1, 2, 3]
    assert files(client, "ended") == ["spec.yaml"]


async def test_what_a_process_has_to_say_is_in_the_log_with_the_job_that_it_is_about(
    story: Story, tracked, client: MlflowClient, caplog: pytest.LogCaptureFixture
):
    await story.submit("missed")
    await story.start("missed")
    async with tracked() as mirror:
        await mirror.caught_up()
        client.delete_run(runs(client)["missed"].info.run_id)
        await story.train("missed", [1])
        await mirror.caught_up()
    [record] = [each for each in caplog.records if "was deleted" in each.getMessage()]
    assert record.name.startswith("dropnorm_service.tracking.mirror")
    assert (vars(record)["job"], vars(record)["mirror"]) == ("missed", "runs")


async def test_a_stop_does_not_wait_for_an_mlflow_that_cannot_be_reached(
    story: Story, tracked, config: TrackingConfig, caplog: pytest.LogCaptureFixture
):
    (config.folder / "mlflow.db").write_text("not a database")
    await story.submit("later")
    await story.start("later")
    async with tracked() as mirror:
        while "MLflow is unavailable" not in caplog.text:  # noqa: ASYNC110 - a log has no event
            await asyncio.sleep(0.05)
        await mirror.stop(grace=3600.0)
    assert not mirror_processes()


async def test_a_stop_kills_a_process_that_does_not_end_in_time(
    story: Story, tracked, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(consumer, "CLOSING_TIME", 3600.0)
    async with tracked() as mirror:
        await story.submit("hangs")
        await story.start("hangs")
        await mirror.caught_up()
        for process in mirror_processes():
            process.suspend()
        await story.train("hangs", [1])
        await mirror.stop(grace=0.5)
        assert not mirror_processes()


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_an_event_that_kills_the_process_is_left_out(
    story: Story,
    tracked,
    client: MlflowClient,
    quick_restarts: None,
    caplog: pytest.LogCaptureFixture,
):
    await story.submit("deadly")
    await story.start("deadly")
    huge = epoch(a_spec(), 1).metrics.model_copy(update={"step": 10**400})  # no float is as large
    await story.tell("deadly", EpochCompleted(metrics=huge))
    await story.train("deadly", [2])
    await story.submit("next")
    await story.start("next")
    async with tracked() as mirror:
        await mirror.caught_up()
    assert steps(client, runs(client)["deadly"]) == [2]
    assert runs(client)["next"].info.status == "RUNNING"
    assert "event 4 of trainingJobs/deadly is left out" in caplog.text
    said = runs(client)["deadly"].data.tags["dropnorm.mirror_error"]
    assert said.startswith("event 4 of trainingJobs/deadly: the process")


@pytest.mark.timeout(600)
@pytest.mark.slow
async def test_an_event_of_a_job_that_waits_is_left_out_too_when_the_process_dies_of_it(
    story: Story,
    tracked,
    client: MlflowClient,
    config: TrackingConfig,
    quick_restarts: None,
    caplog: pytest.LogCaptureFixture,
):
    async with tracked() as mirror:
        await story.submit("deadly")
        await story.start("deadly")
        await mirror.caught_up()
        no_metrics_for(config, runs(client)["deadly"])
        await story.train("deadly", [1])
        mirror.notify([])
        while "deadly waits" not in caplog.text:  # noqa: ASYNC110 - a log has no event
            await asyncio.sleep(0.05)
        huge = epoch(a_spec(), 2).metrics.model_copy(update={"step": 10**400})
        await story.tell("deadly", EpochCompleted(metrics=huge))
        await story.train("deadly", [3])
        mirror.notify([])
        while "mlflow: the process that writes to MLflow died" not in caplog.text:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        metrics_again(config)
        await mirror.caught_up()
    assert steps(client, runs(client)["deadly"]) == [1, 3]
    assert "event 6 of trainingJobs/deadly is left out" in caplog.text
    said = runs(client)["deadly"].data.tags["dropnorm.mirror_error"]
    assert said.startswith("event 6 of trainingJobs/deadly: the process")


@pytest.mark.slow
async def test_a_process_that_cannot_start_costs_no_event(
    story: Story,
    tracked,
    config: TrackingConfig,
    client: MlflowClient,
    quick_restarts: None,
    caplog: pytest.LogCaptureFixture,
):
    in_the_way = config.folder / "mlflow-artifacts.lock"
    in_the_way.mkdir()
    await story.whole("patient")
    async with tracked() as mirror:
        async with asyncio.timeout(60):
            while caplog.text.count("died: exit status 1") < 4:  # noqa: ASYNC110 - a log has no event
                await asyncio.sleep(0.05)
        in_the_way.rmdir()
        await mirror.caught_up()
    run = runs(client)["patient"]
    assert "spec.yaml" in {file.path for file in client.list_artifacts(run.info.run_id)}
    assert "dropnorm.files" not in run.data.tags


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


@pytest.mark.slow
async def test_a_folder_is_written_to_where_mlflow_is_told_to_allow_it(
    story: Story, tracked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "mlruns").as_uri()
    await story.whole("filed")
    async with tracked(TrackingConfig.resolve(tmp_path, uri)) as mirror:
        await mirror.caught_up()
    folder = MlflowClient(uri)
    [run] = runs(folder).values()
    assert run.info.status == "FINISHED"
    assert steps(folder, run) == [1, 2, 3]
    files = {file.path for file in folder.list_artifacts(run.info.run_id)}
    assert files >= {"evaluation.json", "plots", "spec.yaml"}
