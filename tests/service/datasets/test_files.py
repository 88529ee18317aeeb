"""Files that go, or cannot be read, while somebody looks: an answer all the same."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.service.callers import ADA
from tests.service.datasets.folders import Folder
from tests.service.datasets.test_dataset_service import header, sent

from dropnorm_service.datasets.errors import PathNotAllowed
from dropnorm_service.datasets.files import DatasetFiles
from dropnorm_service.datasets.ledger import Ledger
from dropnorm_service.datasets.limits import Limits
from dropnorm_service.datasets.uploads import Upload
from dropnorm_service.jobs.callers import LOCAL
from dropnorm_service.jobs.errors import LimitReached

UNREADABLE = Path("/proc/self/mem")
"""A regular file whose first byte nobody can read, whoever he is."""


@pytest.fixture
def impatient() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_what_goes_while_it_is_counted_counts_nothing(tmp_path: Path):
    upload, lost = Upload("ada", "0" * 64), Upload("ada", "1" * 64)
    DatasetFiles(tmp_path).append(upload, 0, b"12345")
    for path in (
        tmp_path / "partial" / lost.file_name,
        tmp_path / "files" / f"{'2' * 64}.safetensors",
    ):
        path.symlink_to(tmp_path / "gone")  # is listed, and is not there, as one that has just gone
    files = DatasetFiles(tmp_path)
    assert (files.total(), files.taken_by("ada"), files.received(upload)) == (5, 5, 5)
    [stale] = files.stale(before=2**40)
    files.drop_stale(stale, before=2**40)
    assert files.total() == files.datasets() == 0


async def test_names_are_counted_while_threads_give_and_take_them(
    folder: Folder, data: bytes, impatient: None
):
    dataset = await sent(folder, data)
    for n in range(1000):  # takes a while to count
        other = dataset.model_copy(update={"name": f"datasets/n{n}"})
        (folder.folder / "names" / f"n{n}.json").write_text(other.model_dump_json())
    files = DatasetFiles(folder.folder)
    before = files.taken_by(LOCAL.user)
    through = asyncio.Event()

    async def rename() -> None:
        for _ in range(30):
            await asyncio.to_thread(files.name, dataset.model_copy(update={"name": "datasets/b"}))
            await asyncio.to_thread(files.unname, "b")
        through.set()

    renaming = asyncio.create_task(rename())
    while not through.is_set():
        for _ in range(10):
            assert files.taken_by(LOCAL.user) >= before
        await asyncio.sleep(0)
    await renaming


async def test_a_file_has_its_name_while_that_is_noted_anew(
    folder: Folder, data: bytes, impatient: None
):
    """As when it is shared. A file that had none for a moment would be taken for one that nobody needs."""
    dataset = await sent(folder, data)
    ledger = Ledger()
    ledger.name(dataset, 1)

    def share() -> None:
        for _ in range(5000):
            ledger.name(dataset, 1)

    sharing = threading.Thread(target=share)
    sharing.start()
    while sharing.is_alive():
        assert ledger.is_named(dataset.sha256)
        assert ledger.is_sent(Upload(LOCAL.user, dataset.sha256))
    sharing.join()


async def test_a_file_that_cannot_be_read_is_not_imported(tmp_path: Path):
    folder = Folder(tmp_path / "uploads", import_dirs=[UNREADABLE.parent])
    with pytest.raises(PathNotAllowed, match="cannot read that file"):
        await folder.service.import_file("mine", str(UNREADABLE))


async def test_an_import_has_its_place_before_it_reads(tmp_path: Path, data: bytes):
    folder = Folder(tmp_path / "uploads", Limits(user_uploads=1), import_dirs=[UNREADABLE.parent])
    sending = asyncio.Event()

    async def silent() -> AsyncIterator[bytes]:
        sending.set()
        await asyncio.Event().wait()
        yield b""

    first = asyncio.create_task(folder.datasets.upload(ADA, header(data), silent()))
    await sending.wait()
    with pytest.raises(LimitReached, match="You upload 1 files"):
        await folder.datasets.import_file(ADA, "mine", str(UNREADABLE))
    first.cancel()
    await asyncio.wait([first])
