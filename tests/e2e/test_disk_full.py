"""The disk of the data folder fills up under running jobs, and has room again later."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from tests.e2e.servers import (
    PATIENCE,
    Server,
    SlowedServer,
    check_journal,
    eventually,
    first,
    spec,
)

import dropnorm as dn
from dropnorm.results import State
from dropnorm.spec.export import ExportFormat

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

MakeServer = Callable[..., Server]

DISK = 48 * 2**20
EPOCHS = 60
IRIS = [[5.1, 3.5, 1.4, 0.2]]


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


def fill(disk: Path, *, leaving: int = 0) -> Path:
    """Take all room that there is, but for some bytes."""
    hog = disk / "hog"
    with hog.open("wb", buffering=0) as file:
        for piece in (2**20, 4096):
            try:
                while file.write(b"\1" * piece) == piece:
                    pass
            except OSError:
                pass  # that is what was wanted
        file.truncate(file.tell() - leaving)
    return hog


def test_a_full_disk_costs_time_and_nothing_else(
    disk: Path, make_slowed: Callable[..., SlowedServer]
):
    server = make_slowed(
        *("--checkpoint-interval", "0.1", "--disk-reserve", str(4 * 2**20), "--cpu-slots", "1")
    )
    with server.start().client() as client:
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
        server.speed_up()
        eventually(lambda: server.health() == "SERVING", "the good news")
        evaluation = running.result(timeout=PATIENCE)
        assert [each.epoch for each in evaluation.history] == list(range(1, EPOCHS + 1))
        for job in (running, waiting, client.train(spec("iris", epochs=1), job_id="refused")):
            assert job.result(timeout=PATIENCE).history
            check_journal(list(job.watch()))


NOTHING, A_BEGINNING = 0, 64 * 2**10


def test_what_is_asked_of_a_full_disk_is_refused_by_a_sentence(disk: Path, make_server: MakeServer):
    server = make_server("--disk-reserve", "0", "--cpu-slots", "1").start()
    wide = spec("iris", epochs=1).model_copy(update={"architecture": dn.MLP(hidden=(256, 256))})
    x, y = np.zeros((300, 400), np.float32), np.arange(300) % 2
    with server.client() as client:
        job = client.train(wide)
        job.result(timeout=PATIENCE)
        predicted = job.predict(IRIS)
        exports = disk / "jobs" / job.id / "exports"
        asked: Sequence[tuple[int, ExportFormat]] = [
            (NOTHING, "safetensors"),
            *[(A_BEGINNING, each) for each in get_args(ExportFormat)],
        ]
        for leaving, format in asked:
            hog = fill(disk, leaving=leaving)
            with pytest.raises(dn.ResourceExhausted, match="no room for this export of") as refused:
                job.export(format=format)
            assert refused.value.reason == "DISK_FULL"
            assert not list(exports.glob("*")), "nothing is left by halves"
            with pytest.raises(dn.ResourceExhausted, match="no room for the file on the service"):
                client.datasets.upload("wide", x, y)
            assert job.predict(IRIS) == predicted
            hog.unlink()
        assert job.export(format="safetensors").size_bytes > A_BEGINNING
        assert client.datasets.upload("wide", x, y).samples == 300
