"""Registered models of several users, in a registry that anybody may write to."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.service.callers import ADA, BOB, EVE, ROOT, AsCaller
from tests.service.jobs.bench import SPEC, Bench
from tests.service.jobs.registry import BenchRegistry

from dropnorm.results import State, Tracked, TrainingJob
from dropnorm.spec import Submission
from dropnorm_service.jobs.callers import LOCAL, Caller
from dropnorm_service.jobs.errors import (
    InvalidRequest,
    JobNotFound,
    ModelAlreadyExists,
    ModelNotFound,
    ModelUnusable,
    NotOwner,
)
from dropnorm_service.jobs.ports import MODEL
from dropnorm_service.jobs.registered import Registered, RegisteredModels


@dataclass
class Shelf:
    """Registered models, their registry and the jobs that made them."""

    bench: Bench
    registry: BenchRegistry
    models: RegisteredModels

    def as_(self, caller: Caller) -> Any:
        return AsCaller(self.models, caller)

    async def trained(self, caller: Caller, *, shared: bool = False) -> TrainingJob:
        submission = Submission(spec=SPEC, shared=shared)
        job = await self.bench.as_(caller).create(submission)
        attempt = await self.bench.launched()
        model = attempt.launch.folder / MODEL
        model.mkdir()
        (model / "model.json").write_text(job.id)
        attempt.succeed()
        done = await self.bench.reached(job, State.SUCCEEDED)
        tracked = Tracked(mlflow_experiment_id="1", mlflow_run_id="run")
        await self.bench.service.record_tracking(job.id, tracked)
        return done


@pytest.fixture
def shelf(bench: Bench, tmp_path: Path) -> Shelf:
    registry = BenchRegistry()
    models = RegisteredModels(bench.jobs, registry, bench.store.models, tmp_path / "models")
    return Shelf(bench, registry, models)


async def test_a_model_is_its_makers(shelf: Shelf):
    job = await shelf.trained(ADA)
    version = await shelf.as_(ADA).register("digits", job.id, "champion")
    model = await shelf.as_(ADA).get("digits")
    assert (model.owner, model.shared, model.versions) == ("ada", False, (version,))
    assert await shelf.as_(ROOT).get("digits") == model
    for name in ("digits", "nothing"):
        with pytest.raises(ModelNotFound, match=f"no registered model models/{name}"):
            await shelf.as_(BOB).find(Registered(name, alias="champion"))
    bobs = await shelf.trained(BOB)
    with pytest.raises(ModelAlreadyExists):
        await shelf.as_(BOB).register("digits", bobs.id)
    assert await shelf.as_(ADA).register("digits", job.id) == version


async def test_what_a_kill_left_of_a_model_goes_at_the_next_start(shelf: Shelf, tmp_path: Path):
    await shelf.as_(ADA).register("digits", (await shelf.trained(ADA)).id)
    [kept] = (tmp_path / "models").iterdir()
    (tmp_path / "models" / ".1x2y3z" / "model").mkdir(parents=True)
    await shelf.models.sweep()
    assert list((tmp_path / "models").iterdir()) == [kept]


async def test_what_a_killed_worker_left_half_written_is_not_registered(
    shelf: Shelf, tmp_path: Path
):
    job = await shelf.trained(ADA)
    model = shelf.bench.jobs.folder_of(job.id) / MODEL
    (model / ".model.safetensors.1x2y3z4w").write_text("half")
    await shelf.as_(ADA).register("digits", job.id)
    [kept] = (tmp_path / "models").iterdir()
    assert [path.name for path in kept.iterdir()] == ["model.json"]


async def test_a_model_whose_job_is_purged_meanwhile_is_gone(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    job = await shelf.trained(ADA)
    link = os.link

    def purged(source: Path, target: Path) -> None:
        shutil.rmtree(shelf.bench.jobs.folder_of(job.id))
        link(source, target)

    monkeypatch.setattr(os, "link", purged)
    with pytest.raises(ModelUnusable, match="its files are gone; train it again"):
        await shelf.as_(ADA).register("digits", job.id)
    assert list((tmp_path / "models").iterdir()) == []


async def test_a_shared_one_is_used_but_not_changed(shelf: Shelf):
    job = await shelf.trained(ADA)
    await shelf.as_(ADA).register("digits", job.id, "champion", shared=True)
    for user in (BOB, EVE):
        assert (await shelf.as_(user).find(Registered("digits"))).version == 1
        assert [each.id for each in (await shelf.as_(user).list(0, "")).models] == ["digits"]
    bobs = await shelf.trained(BOB)
    for change in (
        shelf.as_(BOB).set_alias(Registered("digits", 1), "mine"),
        shelf.as_(BOB).delete_alias("digits", "champion"),
        shelf.as_(BOB).share("digits", False),
        shelf.as_(BOB).register("digits", bobs.id),
    ):
        with pytest.raises(NotOwner):
            await change
    with pytest.raises(JobNotFound):  # the version is shared, the job is not
        await shelf.bench.as_(BOB).get(job.id)
    with pytest.raises(ModelUnusable, match="not there any more"):
        await shelf.as_(BOB).job_of(Registered("digits"))
    await shelf.as_(ADA).share("digits", False)
    with pytest.raises(ModelNotFound):
        await shelf.as_(BOB).get("digits")


async def test_a_version_of_anothers_shared_job_is_ones_own(shelf: Shelf):
    job = await shelf.trained(ADA, shared=True)
    await shelf.as_(BOB).register("copy", job.id)
    await shelf.bench.as_(ADA).share(job.id, False)
    assert (await shelf.as_(BOB).find(Registered("copy"))).training_job == job.name
    with pytest.raises(JobNotFound):
        await shelf.as_(BOB).register("copy", job.id)


async def test_who_may_write_to_the_registry_gets_nothing_by_it(shelf: Shelf):
    secret = await shelf.trained(ADA)
    version = await shelf.as_(ADA).register("secret", secret.id)
    own = await shelf.trained(BOB)
    await shelf.as_(BOB).register("bobs", own.id)
    # As Bob may do on MLflow's page: tags of a version say what he likes.
    shelf.registry.add("bobs", own.name, version.sha256)
    shelf.registry.add("bobs", secret.name, version.sha256)
    shelf.registry.add("made-by-hand", secret.name, version.sha256)
    assert [each.version for each in (await shelf.as_(BOB).get("bobs")).versions] == [1]
    for asked in (Registered("bobs", 2), Registered("bobs", 3), Registered("made-by-hand")):
        with pytest.raises(ModelNotFound):
            await shelf.as_(BOB).find(asked)
    assert (await shelf.as_(BOB).find(Registered("bobs"))).training_job == own.name


async def test_models_from_before_owners_are_the_local_users_with_all_their_versions(shelf: Shelf):
    for n in "ab":
        shelf.registry.add("old", f"trainingJobs/{n}", n * 64)
    assert (await shelf.as_(LOCAL).get("old")).owner == "local"
    with pytest.raises(ModelNotFound):
        await shelf.as_(ADA).get("old")
    job = await shelf.trained(LOCAL)
    await shelf.as_(LOCAL).register("old", job.id)
    await shelf.as_(LOCAL).share("old", True)
    model = await shelf.as_(ADA).get("old")
    assert [each.version for each in model.versions] == [3, 2, 1]


async def test_a_name_that_was_deleted_in_the_registry_is_free(shelf: Shelf):
    job = await shelf.trained(ADA)
    await shelf.as_(ADA).register("digits", job.id, shared=True)
    del shelf.registry.models["digits"]
    bobs = await shelf.trained(BOB)
    await shelf.as_(BOB).register("digits", bobs.id)
    model = await shelf.as_(BOB).get("digits")
    assert (model.owner, model.shared, len(model.versions)) == ("bob", False, 1)


async def _pages(shelf: Shelf, caller: Caller, size: int) -> list[tuple[list[str], str]]:
    """The ids and the token of each page."""
    pages: list[tuple[list[str], str]] = []
    while not pages or pages[-1][1]:
        page = await shelf.as_(caller).list(size, pages[-1][1] if pages else "")
        pages.append(([model.id for model in page.models], page.next_page_token))
    return pages


@pytest.mark.parametrize("size", [1, 2, 3])
async def test_a_list_is_the_same_whatever_there_is_that_one_does_not_see(shelf: Shelf, size: int):
    own = ["b", "d", "m"]
    job = await shelf.trained(BOB)
    for name in own:
        await shelf.as_(BOB).register(name, job.id)
    alone = await _pages(shelf, BOB, size)
    assert [id for ids, _ in alone for id in ids] == own
    assert all(len(ids) == size for ids, _ in alone[:-1])
    assert alone[-1][0]

    job = await shelf.trained(ADA)
    hidden = ["a", "c", *(f"n{number}" for number in range(60)), "z"]
    for name in hidden:
        await shelf.as_(ADA).register(name, job.id)
    assert await _pages(shelf, BOB, size) == alone
    everything = await _pages(shelf, ROOT, size)
    assert [id for ids, _ in everything for id in ids] == sorted(own + hidden)


@pytest.mark.parametrize("token", ["x", "-1", "1 ", "\u0661", "1" * 10])
async def test_a_token_that_is_not_of_a_page_is_refused(shelf: Shelf, token: str):
    with pytest.raises(InvalidRequest, match="is not one of ours"):
        await shelf.as_(BOB).list(1, token)
