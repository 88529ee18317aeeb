"""Several users of one real server: what each sees, and that MLflow, which has no walls, opens no door back."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from tests.e2e.conftest import SMALL
from tests.e2e.servers import PATIENCE, Server, after_epoch, long, spec

import dropnorm as dn
from dropnorm.cli.exits import Exit
from dropnorm_service.jobs.callers import Role
from dropnorm_service.jobs.service import utc_now
from dropnorm_service.jobs.tokens import Tokens
from dropnorm_service.store import SqlJobStore

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("owners") / "data"
    server = Server(folder, *SMALL, "--authentication", "tokens").start()
    yield server
    server.end()


@pytest.fixture(scope="module")
def tokens(server: Server) -> dict[str, str]:
    """A token of each user."""
    roles = {"ada": Role.USER, "bob": Role.USER, "eve": Role.VIEWER, "root": Role.ADMIN}
    return asyncio.run(_tokens(server.data_dir, roles))


@pytest.fixture(scope="module")
def users(server: Server, tokens: dict[str, str]) -> Iterator[dict[str, dn.Client]]:
    """A client of each user."""
    clients = {
        user: dn.Client(server.address, token=token, timeout=60.0) for user, token in tokens.items()
    }
    yield clients
    for client in clients.values():
        client.close()


async def _tokens(data_dir: Path, roles: dict[str, Role]) -> dict[str, str]:
    url = f"sqlite:///{data_dir}/dropnorm.db"
    async with await SqlJobStore.open(url, beside=True) as store:
        tokens = Tokens(store.tokens, utc_now)
        return {user: (await tokens.create(user, role, None))[1] for user, role in roles.items()}


@pytest.fixture(scope="module")
def trained(users: dict[str, dn.Client]) -> dn.JobHandle:
    """Ada's job, which is done."""
    job = users["ada"].train(spec(epochs=1), job_id="adas")
    job.result(timeout=100)
    return job


@pytest.fixture
def command(server: Server, tokens: dict[str, str]) -> Command:
    """The `dropnorm` command, as a user runs it; its exit status, what it prints, and what it says."""

    def run(user: str, *arguments: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "dropnorm.cli", *arguments, "--address", server.address],
            check=False,
            capture_output=True,
            text=True,
            env=os.environ | {"DROPNORM_TOKEN": tokens[user]},
            timeout=PATIENCE,
        )
        return done.returncode, done.stdout, done.stderr

    return run


def test_each_sees_his_own_and_what_is_shared(users: dict[str, dn.Client], trained: dn.JobHandle):
    ada, bob = users["ada"], users["bob"]
    for other in ("bob", "eve"):
        assert list(users[other].jobs()) == []
        with pytest.raises(dn.NotFound, match="There is no training job trainingJobs/adas"):
            users[other].job("adas")
    trained.share()
    assert [job.owner for job in bob.jobs(filter='owner = "ada"')] == ["ada"]
    inputs = np.zeros((3, 64), np.float32).reshape(3, 1, 8, 8)
    assert (
        len(bob.job("adas").predict(inputs)) == len(users["eve"].job("adas").predict(inputs)) == 3
    )
    with pytest.raises(dn.PermissionDenied, match="belongs to ada"):
        bob.job("adas").delete()
    with pytest.raises(dn.PermissionDenied, match="needs the role user"):
        users["eve"].train(spec())
    trained.unshare()
    assert list(bob.jobs()) == []
    assert [job.id for job in users["root"].jobs()] == [job.id for job in ada.jobs()] == ["adas"]


def test_a_data_set_of_another_is_none_until_it_is_shared(users: dict[str, dn.Client]):
    ada, bob = users["ada"], users["bob"]
    x, y = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32), np.arange(60) % 3
    ada.datasets.upload("flowers", x, y)
    for name in ("flowers", "flowerz"):
        with pytest.raises(dn.InvalidRequest, match=f"there is no data set '{name}'"):
            bob.plan(spec(name))
    with pytest.raises(dn.AlreadyExists):
        bob.datasets.upload("flowers", x, y)
    assert bob.datasets.upload("bobs", x, y).owner == "bob"  # the same file, sent by himself
    ada.datasets.share("flowers")
    job = bob.train(spec("flowers", epochs=100_000))
    with pytest.raises(dn.WrongState, match="1 of other users' jobs"):
        ada.datasets.delete("flowers")
    ada.datasets.unshare("flowers")
    after_epoch(job)  # what was accepted goes on
    job.cancel()


@pytest.mark.parametrize(("kind", "name"), [("jobs", "adas"), ("datasets", "commanded")])
def test_the_command_shares_and_no_longer(
    kind: str,
    name: str,
    users: dict[str, dn.Client],
    trained: dn.JobHandle,
    command: Command,
):
    users["ada"].datasets.upload("commanded", np.eye(20, 4, dtype=np.float32), np.arange(20) % 2)
    shown, hidden, refused = (kind, "get", name, "--json"), Exit.NOT_FOUND, Exit.NOT_ALLOWED
    assert command("bob", *shown)[0] == hidden
    assert command("bob", kind, "share", name)[0] == hidden, "as one that is not there"

    status, _, said = command("ada", kind, "share", name)
    assert (status, said.partition(" ")[2]) == (0, "is shared with the project\n")
    status, printed, _ = command("bob", *shown)
    assert (status, json.loads(printed)["owner"]) == (0, "ada")
    status, _, said = command("bob", kind, "unshare", name)
    assert (status, "belongs to ada" in said) == (refused, True)

    status, printed, _ = command("ada", kind, "unshare", name, "--json")
    assert (status, json.loads(printed)["shared"]) == (0, False)
    assert command("bob", *shown)[0] == hidden


def test_who_watches_is_cut(users: dict[str, dn.Client]):
    job = users["ada"].train(long(), shared=True)
    watched = users["bob"].job(job.id)
    after_epoch(watched)
    job.unshare()
    with pytest.raises(dn.NotFound):
        list(watched.watch())
    job.cancel()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_mlflow_names_the_owner_and_what_is_written_there_opens_nothing(
    server: Server,
    users: dict[str, dn.Client],
    trained: dn.JobHandle,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
):
    bob = users["bob"]
    version = trained.register("secret", timeout=300.0)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{server.data_dir}/mlflow.db")
    mlflow = MlflowClient()
    assert mlflow.get_run(version.mlflow_run_id).data.tags["mlflow.user"] == "ada"
    own = bob.train(spec(epochs=1), job_id="bobs")
    own.result(timeout=100)
    own.register("mine", timeout=300.0)
    # What anybody who reaches MLflow's page can do.
    [entry] = mlflow.search_model_versions("name = 'secret'")
    mlflow.create_model_version("mine", entry.source or "", run_id=entry.run_id, tags=entry.tags)
    assert len(mlflow.search_model_versions("name = 'mine'")) == 2
    assert [each.training_job for each in bob.models.get("mine").versions] == ["trainingJobs/bobs"]
    for name in ("secret", "mine@2"):
        with pytest.raises(dn.NotFound):
            bob.models.predict(name, np.zeros((1, 1, 8, 8), np.float32))
    assert [model.id for model in bob.models.list()] == ["mine"]
    assert {model.owner for model in users["root"].models.list()} == {"ada", "bob"}
    status, _, said = command("ada", "models", "share", "secret")
    assert (status, said) == (0, "models/secret is shared with the project\n")
    assert bob.models.get("secret").shared
    assert command("bob", "models", "unshare", "secret")[0] == Exit.NOT_ALLOWED
    assert command("ada", "models", "unshare", "secret")[0] == 0
    with pytest.raises(dn.NotFound):
        bob.models.get("secret")
