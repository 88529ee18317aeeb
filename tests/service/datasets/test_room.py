"""The limits on bytes hold whatever a caller announces."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import pytest
from tests.service.callers import ADA
from tests.service.datasets.folders import Folder
from tests.service.datasets.test_dataset_owners import part, received, sent
from tests.service.datasets.test_dataset_service import X, Y, chunks, file_of, header

from dropnorm.datasets.arrays import from_arrays
from dropnorm.results import Dataset
from dropnorm_service.datasets.errors import UploadTooLarge
from dropnorm_service.datasets.files import DatasetFiles
from dropnorm_service.datasets.limits import Limits
from dropnorm_service.jobs.errors import InvalidRequest, LimitReached


def limited_in_all(size: int) -> Limits:
    return Limits(total_bytes=size)


def limited_for_each(size: int) -> Limits:
    return Limits(user_bytes=size)


@pytest.mark.parametrize("limits", [limited_in_all, limited_for_each])
async def test_an_upload_that_announces_less_than_is_there_makes_no_room(
    tmp_path: Path, data: bytes, limits: Callable[[int], Limits]
):
    folder = Folder(tmp_path / "uploads", limits(len(data) + 10))
    await part(folder, ADA, data, len(data) - 1)
    opened = asyncio.Event()

    async def nothing() -> AsyncIterator[bytes]:
        opened.set()
        await asyncio.Event().wait()
        yield b""

    small = header(data, size_bytes=1)
    holding = asyncio.create_task(folder.datasets.upload(ADA, small, nothing()))
    await opened.wait()
    other = file_of(tmp_path / "other", from_arrays(X + 1, Y))
    more = file_of(tmp_path / "more", from_arrays(X + 2, Y))
    with suppress(InvalidRequest):  # what was announced as one byte is given up: there is room
        await part(folder, ADA, other, len(other) - 1)
    with pytest.raises((UploadTooLarge, LimitReached), match="delete some"):
        await part(folder, ADA, more, 100)
    holding.cancel()
    await asyncio.wait([holding])
    kept = sum(path.stat().st_size for path in (tmp_path / "uploads").rglob("*.*"))
    assert kept <= len(data) + 10


async def many_names(folder: Folder, data: bytes) -> None:
    """Names of a file that is there, for which nothing more need be sent."""
    for n in range(100):
        await folder.datasets.upload(ADA, header(data, f"n{n}", offset=len(data)), chunks(b""))


@pytest.mark.parametrize("limits", [limited_in_all, limited_for_each])
async def test_names_take_room_too(tmp_path: Path, data: bytes, limits: Callable[[int], Limits]):
    folder = Folder(tmp_path / "uploads", limits(10 * len(data)))
    await sent(folder, ADA, data, "first")
    with pytest.raises((UploadTooLarge, LimitReached), match="delete some"):
        await many_names(folder, data)
    names = list((tmp_path / "uploads" / "names").iterdir())
    assert 2 < len(names) < 100
    again = Folder(folder.folder, folder.limits)  # they are counted by the next service too
    with pytest.raises((UploadTooLarge, LimitReached), match="delete some"):
        await sent(again, ADA, data, "last")
    await again.datasets.delete(ADA, "first")
    await again.datasets.delete(ADA, "n0")
    await sent(again, ADA, data, "last")


async def test_a_list_is_read_beside_the_loop(
    folder: Folder, data: bytes, monkeypatch: pytest.MonkeyPatch
):
    await sent(folder, ADA, data, "mine")
    readers: list[threading.Thread] = []
    get = DatasetFiles.get

    def noted(files: DatasetFiles, dataset_id: str) -> Dataset | None:
        readers.append(threading.current_thread())
        return get(files, dataset_id)

    monkeypatch.setattr(DatasetFiles, "get", noted)
    [found], _ = await folder.datasets.list(ADA, 0, "")
    assert found.id == "mine"
    assert readers
    assert threading.main_thread() not in readers


async def test_what_is_longer_than_the_file_is_none_of_it(folder: Folder, data: bytes):
    await part(folder, ADA, data, 300)
    with pytest.raises(InvalidRequest, match="0 bytes of this file are here"):
        await folder.datasets.upload(ADA, header(data, size_bytes=200, offset=200), chunks(b""))
    assert received(folder, ADA, data) == 0
