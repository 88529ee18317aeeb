"""Data sets of several users: equal files tell nobody of each other, names are their owners', and each has limits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.service.callers import ADA, BOB, EVE, ROOT
from tests.service.datasets.folders import Folder
from tests.service.datasets.test_dataset_service import X, Y, chunks, file_of, files, header
from tests.service.store.rows import draft

from dropnorm.datasets.arrays import from_arrays
from dropnorm.results import Dataset
from dropnorm_service.datasets.errors import (
    DatasetAlreadyExists,
    DatasetInUse,
    DatasetNotFound,
    UploadInProgress,
)
from dropnorm_service.datasets.limits import Limits
from dropnorm_service.jobs.callers import LOCAL, Caller
from dropnorm_service.jobs.errors import InvalidRequest, LimitReached, NotOwner


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "uploads")


@pytest.fixture
def data(tmp_path: Path) -> bytes:
    return file_of(tmp_path / "file")


async def sent(
    folder: Folder, caller: Caller, data: bytes, name: str, shared: bool = False
) -> Dataset:
    announced = header(data, name, shared=shared)
    return await folder.datasets.upload(caller, announced, chunks(data))


def received(folder: Folder, caller: Caller, data: bytes) -> int:
    return folder.datasets.received(caller, header(data).sha256)


async def part(folder: Folder, caller: Caller, data: bytes, length: int) -> None:
    with pytest.raises(InvalidRequest, match="send the rest"):
        await folder.datasets.upload(caller, header(data), chunks(data[:length]))


async def silent(data: bytes, gone_silent: asyncio.Event) -> AsyncIterator[bytes]:
    yield data
    gone_silent.set()
    await asyncio.Event().wait()


async def test_a_file_that_is_there_is_sent_by_each_all_the_same_and_stored_once(
    folder: Folder, data: bytes
):
    await sent(folder, ADA, data, "adas")
    assert received(folder, ADA, data) == len(data)
    assert received(folder, BOB, data) == received(folder, ROOT, data) == 0
    with pytest.raises(InvalidRequest, match="0 bytes of this file are here"):
        await folder.datasets.upload(BOB, header(data, offset=len(data)), chunks(b""))
    await part(folder, BOB, data, 300)
    assert received(folder, BOB, data) == 300
    dataset = await sent(folder, BOB, data, "bobs")
    assert (dataset.owner, dataset.samples) == ("bob", 20)
    names = ["names/adas.json", "names/bobs.json"]
    assert files(folder) == [f"files/{dataset.sha256}.safetensors", *names]


async def test_its_owner_need_not_send_it_again_under_another_name(folder: Folder, data: bytes):
    await sent(folder, ADA, data, "first")
    second = await folder.datasets.upload(
        ADA, header(data, "second", offset=len(data)), chunks(b"")
    )
    assert second.sha256 == folder.datasets.get(ADA, "first").sha256


async def test_nobody_goes_on_with_what_another_has_begun(folder: Folder, data: bytes):
    await part(folder, ADA, data, len(data) - 1)
    with pytest.raises(InvalidRequest, match="0 bytes of this file are here"):
        await folder.datasets.upload(
            BOB, header(data, offset=len(data) - 1), chunks(data[len(data) - 1 :])
        )
    assert received(folder, ADA, data) == len(data) - 1


async def test_two_may_send_the_same_file_at_once_but_one_may_not(folder: Folder, data: bytes):
    sending = asyncio.Event()
    first = asyncio.create_task(
        folder.datasets.upload(ADA, header(data), silent(data[:100], sending))
    )
    await sending.wait()
    with pytest.raises(UploadInProgress):
        await sent(folder, ADA, data, "again")
    assert (await sent(folder, BOB, data, "bobs")).owner == "bob"
    first.cancel()
    await asyncio.wait([first])


async def test_a_file_stays_as_long_as_one_has_it(folder: Folder, data: bytes):
    await sent(folder, ADA, data, "adas")
    await sent(folder, BOB, data, "bobs")
    await folder.datasets.delete(ADA, "adas")
    assert received(folder, ADA, data) == 0
    assert folder.datasets.get(BOB, "bobs").samples == 20
    assert len(files(folder)) == 2
    await folder.datasets.delete(BOB, "bobs")
    assert files(folder) == []


async def test_a_name_is_its_owners_whatever_is_in_it(folder: Folder, data: bytes, tmp_path: Path):
    await sent(folder, ADA, data, "mine")
    other = file_of(tmp_path / "other", from_arrays(X + 1, Y))
    said = set()
    for each in (data, other):
        with pytest.raises(DatasetAlreadyExists) as raised:
            await sent(folder, BOB, each, "mine")
        said.add(raised.value.message)
    await folder.datasets.share(ADA, "mine", True)
    for user in (BOB, ADA):
        with pytest.raises(DatasetAlreadyExists) as raised:
            await sent(folder, user, other, "mine")
        said.add(raised.value.message)
    assert len(said) == 1
    assert (await sent(folder, ADA, data, "mine")).shared  # a repeat changes nothing


async def test_who_sees_it(folder: Folder, data: bytes):
    await sent(folder, ADA, data, "own")
    await sent(folder, ADA, data, "shared", shared=True)
    for user in (BOB, EVE):
        assert [each.id for each in (await folder.datasets.list(user, 0, ""))[0]] == ["shared"]
        assert folder.datasets.hidden(user, "own")
        assert not folder.datasets.hidden(user, "shared")
        assert not folder.datasets.hidden(user, "nothing")
        with pytest.raises(DatasetNotFound):
            folder.datasets.get(user, "own")
        for change in (
            folder.datasets.delete(user, "shared"),
            folder.datasets.share(user, "shared", False),
        ):
            with pytest.raises(NotOwner):
                await change
    [found] = (await folder.datasets.list(ROOT, 0, "", "owner = ada AND shared = false"))[0]
    assert found.id == "own"


async def test_jobs_of_others_that_use_it_are_not_named(folder: Folder, data: bytes):
    await sent(folder, ADA, data, "mine", shared=True)
    hidden = [draft(name, owner="bob") for name in ("secret", "hush")]
    folder.jobs["mine"] = hidden
    with pytest.raises(DatasetInUse, match=r"is used by 2 of other users' jobs") as raised:
        await folder.datasets.delete(ADA, "mine")
    assert raised.value.metadata == {"dataset": "datasets/mine"}
    folder.jobs["mine"] = [
        draft("known", owner="ada"),
        draft("seen", owner="bob", shared=True),
        *hidden,
    ]
    with pytest.raises(
        DatasetInUse, match="used by trainingJobs/known, trainingJobs/seen and 2 of other"
    ):
        await folder.datasets.delete(ADA, "mine")


async def test_who_may_not_delete_it_keeps_nobody_waiting(folder: Folder, data: bytes):
    await sent(folder, ADA, data, "hidden")
    await sent(folder, ADA, data, "shared", shared=True)
    for name, refusal in (
        ("hidden", DatasetNotFound),
        ("shared", NotOwner),
        ("digits", DatasetNotFound),
    ):
        async with asyncio.timeout(60), folder.datasets.held(name):  # as while a job is accepted
            with pytest.raises(refusal):
                await folder.datasets.delete(BOB, name)
            async with folder.datasets.held(name):
                pass


async def test_a_user_has_room_for_so_many_bytes(tmp_path: Path, data: bytes):
    most = 4 * len(data)  # three files with their names are more, and two are less
    folder = Folder(tmp_path / "uploads", Limits(user_bytes=most))
    more = [file_of(tmp_path / f"{n}", from_arrays(X + n, Y)) for n in (1, 2)]
    await sent(folder, ADA, data, "first")
    await part(folder, ADA, more[0], 100)
    await sent(folder, ADA, more[0], "second")
    await sent(folder, ADA, data, "a-second-name")  # the same bytes count once
    with pytest.raises(LimitReached, match="delete some") as raised:
        await sent(folder, ADA, more[1], "third")
    assert raised.value.retry_after is None
    await sent(folder, BOB, data, "bobs")
    await folder.datasets.delete(ADA, "second")
    await sent(folder, ADA, more[1], "third")


async def test_a_user_uploads_so_many_files_at_once(tmp_path: Path, data: bytes):
    folder = Folder(tmp_path / "uploads", Limits(user_uploads=1))
    other = file_of(tmp_path / "other", from_arrays(X + 1, Y))
    sending = asyncio.Event()
    first = asyncio.create_task(
        folder.datasets.upload(ADA, header(data), silent(data[:100], sending))
    )
    await sending.wait()
    with pytest.raises(LimitReached, match="You upload 1 files") as raised:
        await sent(folder, ADA, other, "other")
    assert raised.value.retry_after
    await sent(folder, BOB, other, "bobs")
    first.cancel()
    await asyncio.wait([first])
    await sent(folder, ADA, other, "other")


async def test_what_was_there_before_owners_is_the_local_users(folder: Folder, data: bytes):
    await sent(folder, ADA, data, "old")
    path = folder.folder / "names" / "old.json"
    facts = json.loads(path.read_text())
    del facts["owner"], facts["shared"]
    path.write_text(json.dumps(facts))
    again = Folder(folder.folder)
    assert (again.datasets.get(LOCAL, "old").owner, again.datasets.hidden(ADA, "old")) == (
        "local",
        True,
    )
    assert received(again, LOCAL, data) == len(data)


async def test_owners_and_sharing_outlive_the_service(folder: Folder, data: bytes):
    await sent(folder, ADA, data, "mine")
    await folder.datasets.share(ADA, "mine", True)
    again = Folder(folder.folder)
    assert (again.datasets.get(BOB, "mine").owner, received(again, BOB, data)) == ("ada", 0)
    assert received(again, ADA, data) == len(data)
