"""The service on PostgreSQL: the whole path, and a database that goes away and comes back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.e2e.servers import (
    PATIENCE,
    SlowedServer,
    check_journal,
    eventually,
    first,
    newest_checkpoint,
    refusal,
    spec,
    states,
)
from tests.postgres import Cluster

import dropnorm as dn
from dropnorm.results import State

pytestmark = pytest.mark.slow

EPOCHS = 60
ONCE = [State.QUEUED, State.RUNNING, State.SUCCEEDED]


@pytest.fixture
def server(make_slowed: Callable[..., SlowedServer], postgres_url: str) -> SlowedServer:
    flags = ("--checkpoint-interval", "0.1", "--grace", "5")
    server = make_slowed("--database-url", postgres_url, *flags)
    server.start()
    return server


def test_jobs_run_on_it_and_go_on_after_the_service_was_killed(
    server: SlowedServer, postgres_url: str, tmp_path: Path
):
    status, said = refusal("--data-dir", tmp_path / "other", "--database-url", postgres_url)
    assert status == 1
    assert "another service uses this database" in said
    with server.client() as client:
        job = client.train(spec(epochs=EPOCHS), job_id="hardy", labels={"team": "vision"})
        first(job, dn.CheckpointWritten, lambda checkpoint: checkpoint.epoch >= 2)
        server.kill()
        server.speed_up()
        server.start()
        job = client.job("hardy")
        evaluation = job.result(timeout=PATIENCE)
        assert [each.epoch for each in evaluation.history] == list(range(1, EPOCHS + 1))
        events = list(job.watch())
        check_journal(events)
        assert states(events) == [*ONCE[:2], *ONCE]
        assert [each.id for each in client.jobs(filter="labels.team = vision")] == ["hardy"]
        job.delete()
        assert list(client.jobs()) == []


def test_it_may_crash_and_restart_while_clients_create_watch_and_train(
    server: SlowedServer, postgres: Cluster
):
    with server.client() as client:
        trained = client.train(spec(epochs=EPOCHS), job_id="trained")
        seen: list[dn.Event] = []
        watching = threading.Thread(target=lambda: seen.extend(trained.watch()))
        watching.start()
        first(trained, dn.EpochCompleted)

        def create(number: int) -> dn.JobHandle:
            with server.client() as each:
                each.train(spec("iris", epochs=1), job_id=f"created-{number}")
            return client.job(f"created-{number}")

        with ThreadPoolExecutor(21) as threads:
            restart = threads.submit(postgres.restart)
            created = list(threads.map(create, range(20)))
            restart.result()
        server.speed_up()
        assert [each.epoch for each in trained.result().history] == list(range(1, EPOCHS + 1))
        watching.join(PATIENCE)
        assert states(seen) == ONCE, "the training noticed nothing"
        assert seen == list(client.job("trained").watch())
        for job in created:
            job.result(timeout=PATIENCE)
            events = list(job.watch())
            check_journal(events)
            assert states(events) == ONCE
        assert len(list(client.jobs())) == 21


def test_a_training_goes_on_while_it_is_away_and_its_journal_has_all_of_it(
    server: SlowedServer, postgres: Cluster
):
    folder = server.data_dir / "jobs" / "patient"
    with server.client() as client:
        job = client.train(spec(epochs=EPOCHS), job_id="patient")
        first(job, dn.CheckpointWritten)
        postgres.stop()
        stopped = newest_checkpoint(folder)
        eventually(lambda: newest_checkpoint(folder) > stopped + 1, "newer checkpoints")
        eventually(lambda: server.health() == "NOT_SERVING", "the service says so")
        assert job.refresh().state is State.RUNNING
        postgres.start()
        server.speed_up()
        job.result(timeout=PATIENCE)
        events = list(job.watch())
        check_journal(events)
        assert states(events) == ONCE
        epochs = [event for event in events if isinstance(event.payload, dn.EpochCompleted)]
        assert len(epochs) == EPOCHS
        eventually(lambda: server.health() == "SERVING", "good health")


def test_it_ends_when_the_database_lost_what_it_had_confirmed_and_goes_on_when_started_again(
    server: SlowedServer, postgres: Cluster
):
    with server.client() as client:
        kept = client.train(spec(epochs=EPOCHS), job_id="kept")
        first(kept, dn.CheckpointWritten)
        postgres.save()
        client.train(spec("iris", epochs=1), job_id="lost").result(timeout=PATIENCE)
        server.speed_up()
        postgres.set_back()
        assert server.wait() == 1
    assert "has lost what it had confirmed" in server.log
    server.start()
    with server.client() as client:
        assert [job.id for job in client.jobs()] == ["kept"]
        assert not (server.data_dir / "jobs" / "lost").exists()
        kept = client.job("kept")
        evaluation = kept.result(timeout=PATIENCE)
        assert [each.epoch for each in evaluation.history] == list(range(1, EPOCHS + 1))
        check_journal(list(kept.watch()))
