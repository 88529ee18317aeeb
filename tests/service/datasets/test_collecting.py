"""Data sets that nobody refers to go in the end; none that somebody refers to ever does."""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Set
from pathlib import Path

import pytest
from tests.service.datasets.folders import Folder
from tests.service.datasets.test_dataset_service import chunks, files, header, sent
from tests.service.jobs.bench import SPEC, Bench
from tests.service.jobs.test_expiry import own_changes

from dropnorm.results import Plan
from dropnorm.spec import Data, Submission, TrainingSpec
from dropnorm_service import audit
from dropnorm_service.datasets.errors import DatasetNotFound
from dropnorm_service.jobs.callers import LOCAL
from dropnorm_service.store import SqlJobStore

LATER = 2**40  # seconds since 1970, long after all that happens here


async def used() -> set[str]:
    return {"used"}


async def test_time_counts_from_when_a_data_set_was_last_referred_to(
    folder: Folder, data: bytes, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, logger=audit.LOGGER)
    for name in ("used", "unused"):
        await sent(folder, data, name)
        os.utime(folder.folder / "names" / f"{name}.json", (0, 0))
    assert await folder.datasets.collect(used, before=time.time() - 60) == ["unused"]
    assert own_changes(caplog) == [("DeleteDataset", "datasets/unused")]
    assert folder.service.get("used").samples == 20

    async def nothing() -> set[str]:
        return set()

    assert await folder.datasets.collect(nothing, before=time.time() - 60) == []
    assert await folder.datasets.collect(nothing, before=LATER) == ["used"]
    assert files(folder) == []


async def test_one_that_is_uploaded_again_is_in_use(folder: Folder, data: bytes):
    await sent(folder, data, "mine")
    os.utime(folder.folder / "names" / "mine.json", (0, 0))
    await sent(folder, data, "mine")
    assert await folder.datasets.collect(used, before=time.time() - 60) == []


async def test_what_broke_off_goes_and_an_upload_under_way_stays(tmp_path: Path, data: bytes):
    folder = Folder(tmp_path / "uploads", retention=0.0)
    arriving, rest = asyncio.Event(), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield data[:100]
        arriving.set()
        await rest.wait()
        async for chunk in chunks(data[100:]):
            yield chunk

    upload = asyncio.create_task(folder.datasets.upload(LOCAL, header(data), slowly()))
    await arriving.wait()
    await folder.datasets.forget_broken_uploads()
    assert await folder.datasets.collect(used, before=LATER) == []
    assert len(files(folder)) == 1
    upload.cancel()
    await asyncio.wait([upload])
    await folder.datasets.forget_broken_uploads()
    assert files(folder) == []


async def test_a_job_that_is_accepted_has_its_data_set(tmp_path: Path, data: bytes, folder: Folder):
    """However creation and collection cross each other."""
    async with await SqlJobStore.open(f"sqlite:///{tmp_path}/jobs.db") as store:
        bench = Bench(store, tmp_path / "jobs", data_held=folder.datasets.held)
        plan = bench.planner.plan

        async def check(spec: TrainingSpec, *, uploads: bool = True, user: str = "") -> Plan:
            await asyncio.sleep(0)
            folder.datasets.get(LOCAL, spec.data.dataset)  # as the real one looks for its data
            return await plan(spec, uploads=uploads, user=user)

        bench.planner.plan = check  # type: ignore[method-assign]

        async def create(name: str) -> str | None:
            spec = SPEC.model_copy(update={"data": Data(dataset=name)})
            try:
                await bench.jobs.create(LOCAL, Submission(spec=spec))
            except DatasetNotFound:
                return None
            return name

        steps: asyncio.Queue[None] = asyncio.Queue()

        async def referred() -> Set[str]:
            """Asked before a data set is taken, and again when it is."""
            steps.put_nowait(None)
            found = await store.datasets()
            steps.put_nowait(None)
            return found

        accepted: set[str] = set()
        collected: set[str] = set()
        for turn in range(30):
            name = f"mine{turn}"
            await sent(folder, data, name)
            creating: asyncio.Task[str | None] | None = None
            if turn % 6 == 5:
                creating = asyncio.create_task(create(name))
            collecting = asyncio.create_task(folder.datasets.collect(referred, before=LATER))
            if creating is None:  # after so many steps of the collection
                for _ in range(turn % 6):
                    await steps.get()
                for _ in range(turn // 6):
                    await asyncio.sleep(0)
                creating = asyncio.create_task(create(name))
            collected.update(await collecting)
            if made := await creating:
                accepted.add(made)
            while not steps.empty():
                steps.get_nowait()
        there = {path.stem for path in (folder.folder / "names").iterdir()}
        assert there == accepted
        assert collected == {f"mine{turn}" for turn in range(30)} - accepted
        assert accepted
        assert collected
