"""Uploads, whole and in pieces, good and bad; names, content and deletion."""

from __future__ import annotations

import asyncio
import hashlib
import os
import resource
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.service.datasets.folders import Folder
from tests.service.store.rows import draft

from dropnorm.datasets import Bundle, write_bundle
from dropnorm.datasets.arrays import from_arrays
from dropnorm.results import Dataset
from dropnorm.spec import DatasetManifest
from dropnorm_service.datasets.errors import (
    DatasetAlreadyExists,
    DatasetInUse,
    DatasetNotFound,
    PathNotAllowed,
    UploadInProgress,
    UploadStalled,
    UploadTooLarge,
)
from dropnorm_service.datasets.intake import Header
from dropnorm_service.datasets.limits import Limits
from dropnorm_service.jobs.callers import LOCAL
from dropnorm_service.jobs.errors import InvalidListRequest, InvalidRequest, LimitReached

X = np.arange(60, dtype=np.float32).reshape(20, 3)
Y = np.arange(20) % 2


def file_of(path: Path, bundle: Bundle | None = None) -> bytes:
    write_bundle(bundle or from_arrays(X, Y), path)
    return path.read_bytes()


def header(data: bytes, name: str = "mine", offset: int = 0, **other: object) -> Header:
    values = {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), **other}
    return Header(dataset_id=name, offset=offset, **values)  # type: ignore[arg-type]


async def chunks(data: bytes, size: int = 100) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def sent(folder: Folder, data: bytes, name: str = "mine") -> Dataset:
    """Uploaded in a few pieces, however long it is: each of them takes a way to the disk."""
    pieces = chunks(data, max(100, len(data) // 20))
    return await folder.datasets.upload(LOCAL, header(data, name), pieces)


def files(folder: Folder) -> list[str]:
    return sorted(
        str(path.relative_to(folder.folder)) for path in folder.folder.rglob("*") if path.is_file()
    )


async def test_what_is_uploaded_is_described(folder: Folder, data: bytes):
    dataset = await sent(folder, data)
    assert dataset.name == "datasets/mine"
    assert (dataset.task, dataset.input_shape, dataset.outputs) == ("classification", (3,), 2)
    assert (dataset.samples, dataset.size_bytes) == (20, len(data))
    assert dataset.class_names == ("0", "1")
    assert dataset.sha256 == hashlib.sha256(data).hexdigest()
    assert folder.service.get("mine") == dataset
    assert folder.changes == 1


async def test_equal_files_are_stored_once_and_go_with_their_last_name(folder: Folder, data: bytes):
    await sent(folder, data, "one")
    await sent(folder, data, "two")
    assert len([name for name in files(folder) if name.startswith("files/")]) == 1
    await folder.service.delete("one")
    assert folder.service.get("two").samples == 20
    await folder.service.delete("two")
    assert files(folder) == []


async def test_a_repeat_gives_what_is_there_and_another_file_is_refused(
    folder: Folder, data: bytes, tmp_path: Path
):
    first = await sent(folder, data)
    assert await sent(folder, data) == first
    other = file_of(tmp_path / "other", from_arrays(X + 1, Y))
    with pytest.raises(DatasetAlreadyExists, match="never change"):
        await sent(folder, other)
    assert folder.service.get("mine") == first


async def test_an_upload_goes_on_where_it_broke(folder: Folder, data: bytes):
    async def broken() -> AsyncIterator[bytes]:
        yield data[:300]
        raise ConnectionResetError

    asked = header(data)
    with pytest.raises(ConnectionResetError):
        await folder.service.upload(asked, broken())
    assert folder.service.received(asked.sha256) == 300

    again = Folder(folder.folder)  # the service was started anew meanwhile
    assert again.service.received(asked.sha256) == 300
    dataset = await again.service.upload(header(data, offset=300), chunks(data[300:]))
    assert dataset.samples == 20
    assert again.service.received(asked.sha256) == len(data)


async def test_a_gap_is_refused(folder: Folder, data: bytes):
    with pytest.raises(InvalidRequest, match="0 bytes of this file are here"):
        await folder.service.upload(header(data, offset=5), chunks(data[5:]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-1], "bytes have come; send the rest from there"),
        (lambda data: data + b"x", "more bytes have come than"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "damaged on the way"),
    ],
)
async def test_bytes_that_are_not_as_announced(folder: Folder, data: bytes, change, message):
    with pytest.raises(InvalidRequest, match=message):
        await folder.service.upload(header(data), chunks(change(data)))
    with pytest.raises(DatasetNotFound):
        folder.service.get("mine")
    dataset = await folder.service.upload(header(data), chunks(data))  # a new try from the start
    assert dataset.samples == 20


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"dataset_id": "Big"}, "header.dataset_id"),
        ({"dataset_id": "../up"}, "header.dataset_id"),
        ({"sha256": "abc"}, "header.sha256"),
        ({"size_bytes": 0}, "header.size_bytes"),
        ({"offset": -1}, "header.offset"),
        ({"offset": 10**6}, "header.offset"),
    ],
)
async def test_wrong_headers(folder: Folder, data: bytes, values, field):
    whole = {"dataset_id": "mine", "size_bytes": len(data), "sha256": "0" * 64, **values}
    with pytest.raises(InvalidRequest) as refused:
        await folder.service.upload(Header(**whole), chunks(data))
    assert [problem.field for problem in refused.value.problems] == [field]


async def test_names_of_built_in_data_sets_are_taken(folder: Folder, data: bytes):
    with pytest.raises(InvalidRequest, match="built-in") as refused:
        await sent(folder, data, "digits")
    assert [problem.field for problem in refused.value.problems] == ["header.dataset_id"]
    assert files(folder) == []


def manifest(**values: object) -> DatasetManifest:
    return DatasetManifest.model_validate({"task": "classification", **values})


TWO = manifest(class_names=("a", "b"))
TOKENS = manifest(task="sequence_to_sequence", vocabulary=("a", "b"), target_vocabulary=("c",))
TEXT = manifest(task="masked_language_modelling", vocabulary=("a", "b"))
I64 = np.int64


def text(*rows: list[int]) -> Bundle:
    return Bundle(TEXT, {"x": np.array(rows), "y": np.empty((len(rows), 0), I64)})


def answered(*rows: list[int]) -> Bundle:
    return Bundle(TOKENS, {"x": np.full((len(rows), 3), 5), "y": np.array(rows)})


@pytest.mark.parametrize(
    ("bundle", "message"),
    [
        (Bundle(TWO, {"x": X, "y": np.array([0, 2] * 10)}), "row 1 of y has a class"),
        (Bundle(TWO, {"x": X, "y": np.array([0, -1] * 10)}), "row 1 of y has a class"),
        (Bundle(TWO, {"x": X, "y": np.zeros(20, np.float32)}), "classes are int64"),
        (Bundle(TWO, {"x": np.where(X == 7, np.nan, X), "y": Y}), "row 2 of x has a value"),
        (Bundle(TWO, {"x": np.where(X == 7, np.inf, X), "y": Y}), "row 2 of x has a value"),
        (
            Bundle(TWO, {"x": np.where(X == 7, np.float32(-2e18), X), "y": Y}),
            r"row 2 of x has a value beyond 1e\+18",
        ),
        (
            Bundle(manifest(task="regression"), {"x": X, "y": np.where(X == 7, 2e18, X)}),
            r"row 2 of y has a value beyond 1e\+18",
        ),
        (Bundle(TWO, {"x": X.astype(I64), "y": Y}), "numbers are float32 or uint8"),
        (Bundle(TWO, {"x": X[:, :, None], "y": Y}), "x has the shape"),
        (Bundle(TWO, {"x": X[:, :0], "y": Y}), "x has the shape"),
        (Bundle(TWO, {"x": X, "y": Y, "test_x": X[:, 0], "test_y": Y}), "test_x has the shape"),
        (
            Bundle(manifest(class_names=("a", "b"), feature_names=("one",)), {"x": X, "y": Y}),
            "names 1 features",
        ),
        (Bundle(TWO, {"x": X, "y": Y, "test_x": X[:, :2], "test_y": Y}), "test_x has the shape"),
        (Bundle(manifest(task="regression"), {"x": X, "y": X[:, 0]}), "targets are float32"),
        (
            Bundle(TOKENS, {"x": np.full((2, 3), 9), "y": np.array([[1, 5, 2]] * 2)}),
            "row 0 of x has a token that is not 0 to 6",
        ),
        (
            Bundle(TOKENS, {"x": np.full((2, 3), 5), "y": np.array([[1, 5, 2], [1, 5, 5]])}),
            "row 1 of y must begin with token 1 and hold token 2",
        ),
        (answered([1, 5, 2, 0], [1, 0, 5, 2]), "row 1 of y must .* token 0 everywhere behind"),
        (answered([1, 5, 2, 0], [1, 2, 5, 0]), "row 1 of y must .* token 0 everywhere behind"),
        (answered([1, 5, 2, 0], [1, 2, 2, 0]), "row 1 of y must .* token 0 everywhere behind"),
        (text([1, 5, 6], [1, 4, 0]), "row 1 of x has no token but those of padding"),
        (text([1, 5, 6], [1, 5, 6], [0, 0, 0]), "row 2 of x has no token but those of padding"),
        (text([1, 3, 3], [1, 3, 2]), "no row of x has a token of the vocabulary"),
        (
            Bundle(TOKENS, {"x": np.array([[5, 2], [2, 0]]), "y": np.array([[1, 5, 2]] * 2)}),
            "row 1 of x has no token but those of padding",
        ),
    ],
)
async def test_content_that_no_training_could_use(folder: Folder, tmp_path: Path, bundle, message):
    with pytest.raises(InvalidRequest, match=message):
        await sent(folder, file_of(tmp_path / "bad", bundle))
    assert files(folder) == []


@pytest.mark.parametrize(
    "content",
    [b"", b"\x80\x04pickle", b"\xff" * 64, b"\x08\0\0\0\0\0\0\0{}      "],
    ids=["empty", "pickle", "noise", "no tensors"],
)
async def test_files_of_another_kind(folder: Folder, content: bytes):
    with pytest.raises(InvalidRequest):
        await sent(folder, content)
    assert files(folder) == []


async def test_limits(tmp_path: Path, data: bytes):
    def folder(**limits: int) -> Folder:
        return Folder(tmp_path / "-".join(limits), Limits(**limits))

    with pytest.raises(UploadTooLarge, match="max_dataset_bytes"):
        await sent(folder(bytes=len(data) - 1), data)
    with pytest.raises(UploadTooLarge, match="max_datasets_bytes"):
        await sent(folder(total_bytes=len(data) - 1), data)
    with pytest.raises(InvalidRequest, match="20 samples, and 19 are allowed"):
        await sent(folder(samples=19), data)
    with pytest.raises(InvalidRequest, match="3 values, and 2 are allowed"):
        await sent(folder(values=2), data)


async def test_room_is_set_aside_for_uploads_that_have_begun(tmp_path: Path, data: bytes):
    other = file_of(tmp_path / "other", from_arrays(X + 1, Y))
    folder = Folder(tmp_path / "uploads", Limits(total_bytes=len(data) + len(other) - 1))

    async def meanwhile() -> AsyncIterator[bytes]:
        yield data[:100]
        with pytest.raises(UploadTooLarge, match="max_datasets_bytes"):
            await sent(folder, other, "other")
        yield data[100:]

    assert (await folder.service.upload(header(data), meanwhile())).samples == 20


async def test_uploads_that_nobody_goes_on_with_make_room(tmp_path: Path, data: bytes):
    folder = Folder(tmp_path / "uploads", Limits(datasets=1), retention=60.0)
    other = file_of(tmp_path / "other", from_arrays(X + 1, Y))

    async def begin(file: bytes) -> None:
        with pytest.raises(InvalidRequest, match="send the rest"):
            await folder.service.upload(header(file), chunks(file[:300]))

    await begin(data)
    with pytest.raises(LimitReached, match="delete some"):
        await sent(folder, other)
    [old] = (folder.folder / "partial").iterdir()
    os.utime(old, (0, 0))
    await begin(other)
    assert not old.exists()
    assert (await folder.service.upload(header(other, offset=300), chunks(other[300:]))).samples

    named = folder.service.get("mine").sha256
    os.utime(folder.folder / "files" / f"{named}.safetensors", (0, 0))
    await folder.datasets.forget_broken_uploads()  # a file with a name stays however old it is
    assert folder.service.received(named) == len(other)


async def test_a_full_disk_is_told(folder: Folder, data: bytes):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (500, hard)
    )  # what comes behind is refused by the kernel
    try:
        with pytest.raises(UploadTooLarge, match="no room for the file"):
            await sent(folder, data)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (await sent(folder, data)).samples == 20


async def test_a_data_set_in_use_stays(folder: Folder, data: bytes):
    await sent(folder, data)
    folder.jobs["mine"] = [draft("a"), draft("b")]
    with pytest.raises(DatasetInUse, match="used by trainingJobs/a, trainingJobs/b"):
        await folder.service.delete("mine")
    assert folder.service.get("mine").samples == 20


async def test_who_deletes_waits_for_those_who_rely_on_it_and_they_for_him(
    folder: Folder, data: bytes
):
    await sent(folder, data)
    await sent(folder, data, "other")
    async with folder.service.held("mine"):
        deleting = asyncio.create_task(folder.service.delete("mine"))
        await asyncio.sleep(0.05)
        assert folder.service.get("mine").samples == 20
        arriving = asyncio.create_task(folder.service.held("mine").__aenter__())
        async with folder.service.held("other"), folder.service.held("digits"):
            pass
        folder.jobs["mine"] = [draft("a")]
    with pytest.raises(DatasetInUse):
        await deleting
    async with asyncio.timeout(60):
        await arriving


async def test_an_upload_that_sends_nothing_is_broken_off(tmp_path: Path, data: bytes):
    folder = Folder(tmp_path / "uploads", Limits(total_bytes=3 * len(data)), idle_timeout=0.05)

    async def silent() -> AsyncIterator[bytes]:
        yield data[:300]
        await asyncio.Event().wait()

    with pytest.raises(UploadStalled, match="Nothing has come"):
        await folder.service.upload(header(data), silent())
    other = file_of(tmp_path / "other", from_arrays(X + 1, Y))
    assert (await sent(folder, other, "other")).samples == 20  # the room is free again
    assert folder.service.received(header(data).sha256) == 300
    rest = chunks(data[300:])
    assert (await folder.service.upload(header(data, offset=300), rest)).samples == 20


async def test_one_upload_of_a_file_at_a_time(folder: Folder, data: bytes):
    async def meanwhile() -> AsyncIterator[bytes]:
        with pytest.raises(UploadInProgress):
            await sent(folder, data, "other")
        yield data

    assert (await folder.service.upload(header(data), meanwhile())).samples == 20


async def test_names_without_end_are_refused_and_many_end_a_page(folder: Folder, tmp_path: Path):
    def named(width: int) -> Bundle:
        names = tuple(f"{number:0{width}}" for number in range(9000))
        values: dict[str, Any] = {"x": X, "y": Y, "test_x": X + width, "test_y": Y}
        return Bundle(
            DatasetManifest.model_construct(task="classification", class_names=names), values
        )

    with pytest.raises(InvalidRequest, match=r"class_names: the names .* 1,048,576 are allowed"):
        await sent(folder, file_of(tmp_path / "endless", named(114)))
    for name in "abc":
        await sent(folder, file_of(tmp_path / name, named(100 + ord(name) % 3)), name)
    pages: list[str] = []
    token = ""
    while not pages or token:
        page, token = await folder.service.list(0, token)
        pages.append("".join(each.id for each in page))
    assert pages == ["ab", "c"]


async def test_pages(folder: Folder, data: bytes):
    for name in "cab":
        await sent(folder, data, name)
    first, token = await folder.service.list(2, "")
    second, end = await folder.service.list(2, token)
    assert [each.id for each in (*first, *second)] == ["a", "b", "c"]
    assert end == ""
    with pytest.raises(InvalidListRequest):
        await folder.service.list(-1, "")
    with pytest.raises(InvalidListRequest):
        await folder.service.list(0, "../x")


@pytest.mark.parametrize(
    ("filter", "ids"),
    [
        ("", "abc"),
        ("task = regression", "c"),
        ("task != REGRESSION AND samples > 10", "a"),
        ("name = datasets/b OR outputs = 3", "bc"),
        ("name:SETS/A", "a"),
        ("NOT name:a", ""),
        ("samples <= 10 AND create_time > 2020-01-01T00:00:00Z AND create_time:*", "bc"),
        ("size_bytes < 100", ""),
    ],
)
async def test_filters(folder: Folder, data: bytes, tmp_path: Path, filter: str, ids: str):
    await sent(folder, data, "a")
    await sent(folder, file_of(tmp_path / "b", from_arrays(X[:10], Y[:10])), "b")
    await sent(folder, file_of(tmp_path / "c", from_arrays(X[:10], X[:10])), "c")
    found, end = await folder.service.list(0, "", filter)
    assert ("".join(each.id for each in found), end) == (ids, "")
    first, token = await folder.service.list(1, "", filter)
    assert bool(token) == (len(ids) > 1)
    rest = (await folder.service.list(0, token, filter))[0] if token else ()
    assert "".join(each.id for each in (*first, *rest)) == ids


@pytest.mark.parametrize(
    ("filter", "message"),
    [
        ("state = RUNNING", "there is no field state; the fields are name, task"),
        ("labels.team = x", "there is no field labels.team"),
        ("task = flowers", "a task is one of classification"),
        ("samples = many", "expected a whole number"),
        ("samples >", "expected a value"),
    ],
)
async def test_filters_that_are_none(folder: Folder, filter: str, message: str):
    with pytest.raises(InvalidListRequest, match=message):
        await folder.service.list(0, "", filter)


async def test_imports_stay_in_their_folders(tmp_path: Path, data: bytes):
    allowed, outside = tmp_path / "allowed", tmp_path / "outside"
    allowed.mkdir()
    outside.mkdir()
    (allowed / "good").write_bytes(data)
    (outside / "secret").write_bytes(data)
    (allowed / "link").symlink_to(outside / "secret")
    folder = Folder(tmp_path / "uploads", import_dirs=[allowed])

    assert (await folder.service.import_file("mine", str(allowed / "good"))).samples == 20
    assert (allowed / "good").exists()
    for path in ("link", "../outside/secret", "missing", ".", "good\0"):
        with pytest.raises(PathNotAllowed):
            await folder.service.import_file("other", os.path.join(allowed, path))


async def test_a_file_too_large_to_import_is_not_even_read(tmp_path: Path):
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(2**42)  # takes no room; to read it would take an hour
    folder = Folder(tmp_path / "uploads", import_dirs=[tmp_path])
    with pytest.raises(UploadTooLarge, match="max_dataset_bytes"):
        await folder.service.import_file("mine", str(tmp_path / "huge"))


async def test_what_a_crash_left_is_swept_away(folder: Folder, data: bytes):
    await sent(folder, data)
    (folder.folder / "files" / f"{'0' * 64}.safetensors").write_bytes(data)
    (folder.folder / "names" / ".half.json").write_text("{")
    again = Folder(folder.folder)
    assert [name.split("/")[0] for name in files(again)] == ["files", "names"]
    assert again.service.get("mine").samples == 20
