"""A service ends in good order, says so, and does not start where it cannot work."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from tests.e2e.servers import (
    PATIENCE,
    Server,
    SlowedServer,
    after_epoch,
    check_journal,
    eventually,
    first,
    long,
    refusal,
    spec,
    states,
)
from tests.http2 import answer_begun, deaf

import dropnorm as dn
from dropnorm.results import State
from dropnorm.v1 import training_service_pb2 as pb
from dropnorm.v1.training_service_pb2_grpc import TrainingServiceStub

MakeServer = Callable[..., Server]


def test_a_running_job_writes_a_checkpoint_and_goes_on_after_the_restart(
    make_slowed: Callable[..., SlowedServer],
):
    server = make_slowed("--grace", "100", "--checkpoint-interval", "1000")
    with server.start().client() as client:
        job = client.train(spec(epochs=60), job_id="goes-on")
        after_epoch(job)
        started = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - started < 100, "within its grace time"
        server.speed_up()
        server.start()
        job = client.job("goes-on")
        evaluation = job.result(timeout=PATIENCE)

        events = list(job.watch())
        check_journal(events)
        assert states(events) == [
            State.QUEUED,
            State.RUNNING,
            State.QUEUED,
            State.RUNNING,
            State.SUCCEEDED,
        ]
        kinds = [(event.kind, event.attempt) for event in events]
        assert ("checkpoint", 1) in kinds
        assert [each.epoch for each in evaluation.history] == list(range(1, 61))
        epochs = [event for event in events if isinstance(event.payload, dn.EpochCompleted)]
        assert len(epochs) == 60, "no epoch was done twice"


def test_a_stranger_who_does_not_read_keeps_no_checkpoint_from_being_written(
    make_server: MakeServer,
):
    server = make_server("--grace", "10", "--checkpoint-interval", "1000").start()
    with server.client() as client:
        after_epoch(client.train(long(), job_id="kept"))
    with deaf(server.port, "/grpc.health.v1.Health/Watch") as watcher:
        answer_begun(watcher)
        assert server.stop() == 0
    assert list((server.data_dir / "jobs" / "kept" / "checkpoints").glob("*.safetensors"))


def test_a_job_is_queued_while_the_service_is_away(make_server: MakeServer):
    server = make_server().start()
    with server.client() as client:
        job = client.train(long(), job_id="queued")
        after_epoch(job)
    assert server.stop() == 0
    again = make_server("--cpu-slots", "1").start()
    with again.client() as client:
        job = client.job("queued")
        change = first(job, dn.StateChanged, lambda payload: "stopping" in payload.message)
        assert isinstance(change.payload, dn.StateChanged)
        assert change.payload.state is State.QUEUED
        job.cancel()
        with pytest.raises(dn.JobCancelled):
            job.result()


def test_its_end_is_announced(make_server: MakeServer):
    """Every stream gets a last event, then UNAVAILABLE, which tells a client to come back."""
    server = make_server("--cpu-slots", "1").start()
    with server.client() as client:
        jobs = [client.train(long(), priority=priority).name for priority in (1, 0)]
        after_epoch(client.job(jobs[0]))
    last: dict[str, str] = {}
    ended: list[grpc.StatusCode] = []

    def watch(name: str) -> None:
        with grpc.insecure_channel(server.address) as channel:
            request = pb.WatchTrainingJobRequest(name=name)
            try:
                for event in TrainingServiceStub(channel).WatchTrainingJob(
                    request, timeout=PATIENCE
                ):
                    last[name] = str(event.payload)
            except grpc.RpcError as error:
                ended.append(error.code())

    watching = [threading.Thread(target=watch, args=(name,)) for name in jobs]
    for thread in watching:
        thread.start()
    eventually(lambda: len(last) == 2, "both are watched")
    assert server.stop() == 0
    for thread in watching:
        thread.join(PATIENCE)

    assert ended == [grpc.StatusCode.UNAVAILABLE] * 2
    assert "The service is stopping; the job goes on" in last[jobs[0]]
    assert "The service is stopping; the job stays QUEUED" in last[jobs[1]]


def test_two_services_never_share_a_folder(tracked: Server):
    status, said = refusal("--data-dir", tracked.data_dir)

    assert status == 1
    assert str(tracked.data_dir) in said
    assert str(tracked.process.pid) in said
    assert tracked.health() == "SERVING"


def test_a_port_that_is_taken(tracked: Server, tmp_path: Path):
    flags = ["--data-dir", tmp_path / "other", "--port", tracked.port, "--no-tracking"]
    status, said = refusal(*flags)

    assert status == 1
    assert f"127.0.0.1:{tracked.port}" in said


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (["--cpu-slots", "-1"], ["cpu_slots"]),
        (["--grace", "soon", "--max-attempts", "0"], ["grace", "max_attempts"]),
        (["--cpu-slots", "0", "--gpus", "0"], ["cpu_slots", "gpus"]),
        (["--config", "/no/such/file.toml"], ["config"]),
        (["--config", "~/no-such-file.toml"], ["config", str(Path.home())]),
        (["--dataset-mirrors", "notjson"], ["dataset_mirrors", "NAME=VALUE"]),
        (["--database-url", "nonsense"], ["database_url", "sqlite:"]),
        (
            ["--database-url", "postgresql+psycopg://a@b/c"],
            ["database_url", "driver psycopg"],
        ),
        (["--database-url", "postgresql://a@b/c?sslmode=x"], ["database_url", "sslmode"]),
        (["--database-url", "mysql://b/c"], ["database_url", "SQLite or PostgreSQL", "mysql"]),
        (["--database-url", "postgresql://b:port/c"], ["database_url"]),
    ],
)
def test_settings_that_cannot_be(tmp_path: Path, flags: list[str], names: list[str]):
    status, said = refusal("--data-dir", tmp_path, *flags)

    assert status == 2
    for name in names:
        assert name in said


@pytest.mark.parametrize(
    "url", ["postgresql+psycopg://a:secret@b/c", "postgresql://a:secret@b/c?sslmode=x"]
)
def test_a_password_is_told_to_nobody(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch):
    status, said = refusal("--data-dir", tmp_path, "--database-url", url)
    assert (status, "--secrets-dir" in said) == (2, True)  # a command line is there for all to read
    assert "secret@" not in said

    monkeypatch.setenv("DROPNORM_DATABASE_URL", url)
    status, said = refusal("--data-dir", tmp_path)
    assert (status, "database_url" in said) == (2, True)
    assert "secret" not in said


@pytest.mark.parametrize("folder", ["/etc/passwd/x", "/etc/passwd", "/proc/nope", "x" * 300])
def test_a_data_folder_that_cannot_be(folder: str):
    status, said = refusal("--data-dir", folder, "--no-tracking")

    assert status == 1
    assert f"data_dir: the folder {Path(folder).absolute()} cannot be made or written" in said
