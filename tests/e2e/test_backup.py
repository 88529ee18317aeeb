"""A backup that is made under load is whole: a service on it goes on as if nothing had been."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.e2e.conftest import SMALL
from tests.e2e.servers import PATIENCE, Server, check_journal, first, spec
from tests.postgres import Cluster

import dropnorm as dn
from dropnorm.results import State
from dropnorm_service.lock import copying

pytestmark = pytest.mark.slow

EPOCHS = 200


def back_up(server: Server, folder: Path, *flags: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "dropnorm_service.backup", str(folder)),
            *("--data-dir", str(server.data_dir), *map(str, flags)),
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def use(server: Server, name: str) -> dn.JobHandle:
    """Make a data set and a model of it."""
    inputs = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    with server.client() as client:
        client.datasets.upload("mine", inputs, inputs[:, 0] > 0)
        job = client.train(spec("mine", epochs=2), job_id=name)
        job.result(timeout=PATIENCE)
    return job


def check_restored(server: Server, accepted: set[str]) -> None:
    with server.client() as client:
        assert {job.id for job in client.jobs()} >= accepted
        again = client.job("trained")
        assert [each.epoch for each in again.result(timeout=PATIENCE).history] == list(
            range(1, EPOCHS + 1)
        )
        check_journal(list(again.watch()))
        for job in client.jobs():
            if job.refresh().state is State.SUCCEEDED:
                shape = (1, 4) if job.spec.data.dataset == "mine" else (1, 1, 8, 8)
                client.models.predict(job.name, np.zeros(shape, dtype=np.float32))
        assert client.train(spec("mine", epochs=1)).result(timeout=PATIENCE).history


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_backup_under_load_is_whole(
    kind: str,
    make_server: Callable[..., Server],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    flags: list[str] = []
    if kind == "postgresql":
        cluster: Cluster = request.getfixturevalue("postgres")
        monkeypatch.setenv("PATH", f"{cluster.binaries}{os.pathsep}{os.environ['PATH']}")
        flags = ["--database-url", request.getfixturevalue("postgres_url")]
    server = make_server("--checkpoint-interval", "0.1", *flags).start()
    use(server, "done")
    with server.client() as client:
        trained = client.train(spec(epochs=EPOCHS), job_id="trained")
        first(trained, dn.CheckpointWritten)
        accepted = {client.train(spec(epochs=1), job_id=f"waits-{n}").id for n in range(6)}
        said = back_up(server, tmp_path / "backup", *flags)
        assert said.returncode == 0, said.stderr
        assert stat.S_IMODE((tmp_path / "backup").stat().st_mode) == 0o700
        trained.result(timeout=PATIENCE)  # the service goes on
    server.stop()

    restored = tmp_path / "restored"
    shutil.copytree(tmp_path / "backup", restored)
    if kind == "sqlite":
        check_restored_on(restored, accepted)
    else:
        with cluster.database() as url:
            dump = restored / "dropnorm.dump"
            subprocess.run(["pg_restore", "--no-owner", f"--dbname={url}", dump], check=True)
            check_restored_on(restored, accepted, "--database-url", url)


def check_restored_on(folder: Path, accepted: set[str], *flags: str) -> None:
    server = Server(folder, *SMALL, "--no-tracking", *flags).start()
    try:
        check_restored(server, accepted | {"done", "trained"})
    finally:
        server.end()


def test_nothing_is_removed_while_a_backup_is_made(make_server: Callable[..., Server]):
    server = make_server().start()
    job = use(server, "done")
    folder = server.data_dir / "jobs" / "done"
    with server.client() as client:
        with copying(server.data_dir):
            client.job(job.id).delete()
            with pytest.raises(dn.Unavailable, match="A backup is being made"):
                client.datasets.delete("mine")
            assert (folder / "model").exists()
        client.datasets.delete("mine")


def test_what_cannot_be_backed_up_is_a_sentence(tmp_path: Path):
    server = Server(tmp_path / "nothing")
    server.data_dir.mkdir()
    said = back_up(server, tmp_path / "backup")
    assert said.returncode == 1
    assert "dropnorm.db cannot be copied: unable to open" in said.stderr
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    said = back_up(server, tmp_path / "full")
    assert (said.returncode, said.stderr) == (
        1,
        f"dropnorm backup: {tmp_path / 'full'} is not empty; give a new folder for each backup\n",
    )
