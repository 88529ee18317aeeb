"""A caller who goes away in the middle of a change of a data set leaves it done or undone, and nobody in its way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.service.datasets.folders import Folder
from tests.service.datasets.test_dataset_service import X, Y, chunks, file_of, files
from tests.service.datasets.test_dataset_service import header as header_of

from dropnorm.datasets.arrays import from_arrays
from dropnorm_service import durable
from dropnorm_service.datasets.errors import DatasetAlreadyExists
from dropnorm_service.jobs.callers import Caller, Role
from dropnorm_service.unbroken import Undertaking

ADA, BOB = Caller("ada", Role.USER), Caller("bob", Role.USER)


class Disk:
    """A disk whose next sync of a name takes until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._free = threading.Event()
        self._free.set()
        self._syncing = threading.Event()
        self._sync = durable.sync
        monkeypatch.setattr("dropnorm_service.datasets.files.sync", self._slowly)

    def _slowly(self, path: Path) -> None:
        if not self._free.is_set():
            self._syncing.set()
            assert self._free.wait(60)
        self._sync(path)

    async def leave_within(self, call: Coroutine[Any, Any, object]) -> asyncio.Task[object]:
        """Begin a call, and have its caller go away while the disk works for it."""
        self._free.clear()
        self._syncing.clear()
        task = asyncio.create_task(call)
        assert await asyncio.to_thread(self._syncing.wait, 60)
        task.cancel()
        await asyncio.sleep(0)
        return task

    def go_on(self) -> None:
        self._free.set()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk(monkeypatch)
    yield disk
    disk.go_on()


async def upload(folder: Folder, caller: Caller, data: bytes, name: str = "mine") -> object:
    return await folder.datasets.upload(caller, header_of(data, name), chunks(data, 10**6))


async def test_a_deletion_is_finished(tmp_path: Path, disk: Disk):
    folder = Folder(tmp_path / "data")
    await upload(folder, ADA, file_of(tmp_path / "a"))
    before = folder.changes
    left = await disk.leave_within(folder.datasets.delete(ADA, "mine"))
    disk.go_on()
    await asyncio.wait([left])
    assert left.cancelled()
    assert files(folder) == []
    assert folder.changes == before + 1, "what was planned on it is forgotten"


async def test_nobody_else_gets_a_name_that_is_being_given(tmp_path: Path, disk: Disk):
    folder = Folder(tmp_path / "data")
    one, two = file_of(tmp_path / "a"), file_of(tmp_path / "b", from_arrays(X + 1, Y))
    await upload(folder, ADA, one, "warm")
    left = await disk.leave_within(upload(folder, ADA, one))
    other = asyncio.create_task(upload(folder, BOB, two))
    disk.go_on()
    with pytest.raises(DatasetAlreadyExists):
        await other
    await asyncio.wait([left])
    assert folder.datasets.get(ADA, "mine").owner == "ada"


async def test_what_is_shared_and_then_deleted_does_not_come_back(tmp_path: Path, disk: Disk):
    folder = Folder(tmp_path / "data")
    await upload(folder, ADA, file_of(tmp_path / "a"))
    left = await disk.leave_within(folder.datasets.share(ADA, "mine", True))
    deleted = asyncio.create_task(folder.datasets.delete(ADA, "mine"))
    disk.go_on()
    await deleted
    await asyncio.wait([left])
    assert files(folder) == []


async def test_every_change_says_that_it_may_have_changed_something(tmp_path: Path):
    folder = Folder(tmp_path / "data", import_dirs=[tmp_path])
    data = file_of(tmp_path / "a")
    changes: list[Coroutine[Any, Any, object]] = [
        upload(folder, ADA, data),
        folder.datasets.import_file(ADA, "imported", str(tmp_path / "a")),
        folder.datasets.share(ADA, "mine", True),
        folder.datasets.delete(ADA, "mine"),
    ]
    for change in changes:
        undertaking = Undertaking(change)
        await undertaking.through()
        assert undertaking.may_have_changed
    repeated = Undertaking(upload(folder, ADA, data, "imported"))
    await repeated.through()
    assert not repeated.may_have_changed
