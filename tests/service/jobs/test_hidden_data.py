"""A data set that comes to be while a request waits for the planner is nothing to who may not see it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.service.api.test_ownership import DirectPlanner
from tests.service.callers import ADA, BOB, ROOT
from tests.service.datasets.folders import Folder
from tests.service.datasets.test_dataset_owners import sent
from tests.service.datasets.test_dataset_service import file_of
from tests.service.jobs.bench import SPEC, Bench

from dropnorm.results import Plan
from dropnorm.spec import Augmentation, Data, Submission, TrainingSpec
from dropnorm_service.jobs.errors import InvalidRequest
from dropnorm_service.jobs.ports import JobQuery
from dropnorm_service.store import SqlJobStore

THEIRS = SPEC.model_copy(update={"data": Data(dataset="theirs")})
MISFIT = SPEC.model_copy(
    update={"data": Data(dataset="theirs", augmentation=Augmentation(horizontal_flip=0.5))}
)
"""Asks for what the data set cannot give, so that the refusal would tell what it is."""


class SlowPlanner(DirectPlanner):
    """Ada publishes a data set, for herself or for all, before it comes to look."""

    def __init__(self, folder: Path, uploads: Folder) -> None:
        super().__init__(folder)
        self.uploads, self._data = uploads, file_of(folder / "file")
        self.shared = False

    async def plan(self, spec: TrainingSpec, *, uploads: bool = True, user: str = "") -> Plan:
        await sent(self.uploads, ADA, self._data, "theirs", shared=self.shared)
        return await super().plan(spec, uploads=uploads, user=user)


@pytest.fixture
def planner(tmp_path: Path) -> SlowPlanner:
    return SlowPlanner(tmp_path, Folder(tmp_path / "uploads"))


@pytest.fixture
async def bench(store: SqlJobStore, tmp_path: Path, planner: SlowPlanner) -> AsyncIterator[Bench]:
    hidden = planner.uploads.datasets.hidden
    bench = Bench(store, tmp_path / "jobs", planner=planner, data_hidden=hidden)
    yield bench
    await bench.service.stop(grace=0.0)


@pytest.mark.parametrize("spec", [THEIRS, MISFIT])
@pytest.mark.parametrize("asks", ["plan", "create"])
async def test_it_is_as_if_there_were_none(bench: Bench, spec: TrainingSpec, asks: str):
    bob = bench.as_(BOB)
    with pytest.raises(InvalidRequest, match="there is no data set 'theirs'"):
        await (bob.plan(spec) if asks == "plan" else bob.create(Submission(spec=spec)))
    assert not (await bench.as_(ROOT).list(JobQuery())).jobs


async def test_one_for_all_is_for_who_asked_before_too(bench: Bench, planner: SlowPlanner):
    planner.shared = True
    assert (await bench.as_(BOB).plan(THEIRS)).spec == THEIRS
    assert (await bench.as_(BOB).create(Submission(spec=THEIRS))).owner == "bob"
