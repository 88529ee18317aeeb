"""The limits on data sets and their bytes hold whatever a caller announces, and cost no more the more there is."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Set
from contextlib import suppress
from pathlib import Path
from types import FrameType

import pytest
from tests.service.callers import ADA, BOB
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


async def test_a_user_has_so_many_data_sets(tmp_path: Path, data: bytes):
    folder = Folder(tmp_path / "uploads", Limits(user_datasets=2, datasets=3))
    more = [file_of(tmp_path / f"{n}", from_arrays(X + n, Y)) for n in (1, 2)]
    await sent(folder, ADA, data, "first")
    await part(folder, ADA, more[0], 100)

    again = Folder(folder.folder, folder.limits)  # they are counted by the next service too
    for each, name in ((data, "another-name"), (more[1], "another-file")):
        with pytest.raises(LimitReached, match="you would have more than 2 data sets") as raised:
            await sent(again, ADA, each, name)
        assert raised.value.metadata == {"setting": "max_datasets_per_user", "limit": "2"}
        assert raised.value.retry_after is None
    await sent(again, ADA, more[0], "second")  # it was counted when it began
    await sent(again, ADA, data, "first")  # a repeat is none more
    await sent(again, BOB, data, "bobs")
    with pytest.raises(LimitReached, match="there would be more than 3 data sets") as raised:
        await sent(again, BOB, more[0], "too-many")
    assert (raised.value.metadata["setting"], raised.value.subject) == ("max_datasets", "service")
    await again.datasets.delete(ADA, "first")
    await sent(again, ADA, more[1], "third")


async def test_uploads_at_once_are_no_more_than_may_be(tmp_path: Path):
    folder = Folder(tmp_path / "uploads", Limits(user_datasets=3))
    bundles = [file_of(tmp_path / f"{n}", from_arrays(X + n, Y)) for n in range(8)]
    outcomes = await asyncio.gather(
        *(sent(folder, ADA, each, f"n{n}") for n, each in enumerate(bundles)),
        return_exceptions=True,
    )
    assert sum(isinstance(each, Dataset) for each in outcomes) == 3
    assert sum(isinstance(each, LimitReached) for each in outcomes) == 5


async def test_what_is_counted_is_what_is_there(tmp_path: Path, data: bytes):
    """Through all that can happen to a file, as the next service counts anew."""
    folder = Folder(tmp_path / "uploads", import_dirs=[tmp_path], retention=0.0)
    datasets = folder.datasets
    other = file_of(tmp_path / "other", from_arrays(X + 1, Y))
    counts: list[tuple[int, ...]] = []

    def counted(folder: Folder) -> tuple[int, ...]:
        files = folder.datasets._files  # what no caller can ask
        users = [(files.taken_by(each), files.datasets_of(each)) for each in ("ada", "bob")]
        return files.total(), files.datasets(), *(n for each in users for n in each)

    async def refused() -> None:
        with pytest.raises(InvalidRequest):
            await sent(folder, ADA, b"no data set", "nothing")

    for step in (
        sent(folder, ADA, data, "first"),
        sent(folder, ADA, data, "second"),
        sent(folder, BOB, data, "bobs"),
        part(folder, ADA, other, 100),
        part(folder, BOB, other, 200),
        datasets.import_file(BOB, "imported", str(tmp_path / "other"), shared=True),
        datasets.share(ADA, "first", True),
        refused(),
        datasets.delete(ADA, "first"),
        datasets.delete(ADA, "second"),
        datasets.forget_broken_uploads(),
        datasets.delete(BOB, "bobs"),
        datasets.delete(BOB, "imported"),
    ):
        await step
        counts.append(counted(folder))
        assert counts[-1] == counted(Folder(folder.folder))
    assert set(counts[-1]) == {0}
    assert len(set(counts)) == len(counts) - 1, "only what was refused has left all as it was"


async def test_an_upload_does_not_go_through_all_that_there_is(folder: Folder, data: bytes):
    dataset = await sent(folder, ADA, data, "first")
    few = await calls_of(sent(folder, ADA, data, "second"))
    for n in range(300):
        named = dataset.model_copy(update={"name": f"datasets/n{n}", "sha256": f"{n:064x}"})
        (folder.folder / "names" / f"n{n}.json").write_text(named.model_dump_json())
        (folder.folder / "files" / f"{n:064x}.safetensors").write_bytes(b"")
        (folder.folder / "partial" / f"{n:064x}.somebody").write_bytes(b"")
    full = Folder(folder.folder)
    assert await calls_of(sent(full, ADA, data, "third")) < 2 * few
    assert await calls_of(full.datasets.collect(nothing, before=0.0)) < few


async def nothing() -> Set[str]:
    return set()


async def calls_of(work: Awaitable[object]) -> int:
    """Calls of functions that this thread makes until something is done."""
    count = 0

    def called(frame: FrameType, event: str, arg: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(called)
    try:
        await work
    finally:
        sys.setprofile(None)
    return count


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
