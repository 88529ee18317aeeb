"""The disk of the data folder fills up under running jobs, and has room again later."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.e2e.servers import Server, check_journal, eventually, first, spec

import dropnorm as dn
from dropnorm.results import State

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

MakeServer = Callable[..., Server]

DISK = 48 * 2**20
EPOCHS = 400


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own, where the service's data folder will be."""
    folder = tmp_path / "data"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk of its own, and not in every container")
    (folder / "service.log").symlink_to(tmp_path / "service.log")  # which shall tell of it
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Take all room that there is."""
    hog = disk / "hog"
    with hog.open("wb", buffering=0) as file:
        for piece in (2**20, 4096):
            try:
                while file.write(b"\1" * piece) == piece:
                    pass
            except OSError:
                pass  # that is what was wanted
    return hog


def test_a_full_disk_costs_time_and_nothing_else(disk: Path, make_server: MakeServer):
    server = make_server(
        *("--checkpoint-interval", "0.1", "--disk-reserve", str(4 * 2**20), "--cpu-slots", "1")
    ).start()
    with server.client() as client:
        running = client.train(spec(epochs=EPOCHS), job_id="running")
        waiting = client.train(spec("iris", epochs=1), job_id="waiting")
        first(running, dn.CheckpointWritten)
        hog = fill(disk)

        eventually(lambda: server.health() == "NOT_SERVING", "the bad news")
        with pytest.raises(dn.ResourceExhausted, match="MiB are kept for the jobs") as refused:
            client.train(spec("iris"), job_id="refused")
        assert refused.value.reason == "LIMIT_REACHED"
        assert running.refresh().state in (State.RUNNING, State.QUEUED)
        assert waiting.refresh().state is State.QUEUED
        # It goes on until something has to be written, and then waits or is tried again, but never fails.
        eventually(lambda: "disk is full" in server.log or "No space" in server.log, "complaints")

        hog.unlink()
        eventually(lambda: server.health() == "SERVING", "the good news")
        evaluation = running.result(timeout=120)
        assert [each.epoch for each in evaluation.history] == list(range(1, EPOCHS + 1))
        for job in (running, waiting, client.train(spec("iris", epochs=1), job_id="refused")):
            assert job.result(timeout=60).history
            check_journal(list(job.watch()))
