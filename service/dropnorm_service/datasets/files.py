"""Data sets on the disk: files by their content, names beside them, and what has come so far of an upload.

    folder/names/<id>.json               a `Dataset`: what it is and which file holds it
    folder/files/<sha256>.safetensors    its file, which never changes
    folder/partial/<sha256>.<sender>     the first bytes of a file that somebody uploads, or all, not yet checked

A name is written after its file is whole and checked, and a file goes with its last name; a crash in between leaves
a file without a name, which the next start removes.

Equal files are stored once, but what one user has sent is nothing to another, who sends all of it himself: otherwise
one who knows no more of a file than its SHA-256 could learn that it is here, and have it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Collection, Container, Iterator
from pathlib import Path
from typing import NamedTuple

from dropnorm.results import Dataset
from dropnorm_service.durable import sync


class Upload(NamedTuple):
    """A file that a user sends, or has sent."""

    owner: str
    sha256: str


class _Named(NamedTuple):
    """What a name stands for, and the bytes of its file and of itself."""

    upload: Upload
    file_bytes: int
    name_bytes: int


class DatasetFiles:
    """One folder of uploaded data sets. One server writes. Every method waits for the disk.

    Args:
        folder: made when it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._names, self._files = folder / "names", folder / "files"
        self._partial = folder / "partial"
        for part in (self._names, self._files, self._partial):
            part.mkdir(parents=True, exist_ok=True)
        self._named = {each.id: _named(each, _size(self._name(each.id))) for each in self.all()}

    def sweep(self) -> None:
        """Remove what a crash left: files without a name, and names that were not written to their end."""
        for temporary in self._names.glob(".*"):
            temporary.unlink(missing_ok=True)
        for path in self._files.iterdir():
            if not self._is_named(path.stem):
                path.unlink(missing_ok=True)

    def expire(self, before: float, *, keep: Container[str]) -> None:
        """Remove what nobody went on with: uploads, and files without a name, that last grew before a time.

        Args:
            before: seconds since 1970.
            keep: SHA-256 (hex) of files that somebody works on now.
        """
        for folder in (self._partial, self._files):
            for path in folder.iterdir():
                if path.stem in keep or (folder == self._files and self._is_named(path.stem)):
                    continue
                with contextlib.suppress(FileNotFoundError):  # it goes without our help
                    if path.stat().st_mtime < before:
                        path.unlink()

    def touch(self, dataset_id: str) -> None:
        """Note that a data set is in use now; the time of its name says when it last was."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self._name(dataset_id))

    def last_used(self, dataset_id: str) -> float:
        """When a data set was last known to be in use, in seconds since 1970; now, if there is none."""
        try:
            return self._name(dataset_id).stat().st_mtime
        except FileNotFoundError:
            return time.time()

    def get(self, dataset_id: str) -> Dataset | None:
        """A data set by its id."""
        try:
            text = self._name(dataset_id).read_text("utf-8")
        except FileNotFoundError:
            return None
        return Dataset.model_validate_json(text)

    def ids(self) -> list[str]:
        """Every id, in order."""
        return sorted(path.stem for path in self._names.glob("[a-z]*.json"))

    def all(self) -> Iterator[Dataset]:
        """Every data set, by id."""
        return (found for each in self.ids() if (found := self.get(each)) is not None)

    def sent(self, upload: Upload) -> Path | None:
        """The file, if its sender has a data set of it."""
        known = any(each.upload == upload for each in self._known())
        return self._file(upload.sha256) if known else None

    def received(self, upload: Upload) -> int:
        """Bytes of a file that its sender need not send again."""
        return _size(self.sent(upload) or self.partial(upload))

    def total(self) -> int:
        """Bytes of all files, unfinished ones too, and of all names."""
        folders = (self._files, self._partial)
        files = sum(_size(path) for folder in folders for path in folder.iterdir())
        return files + sum(each.name_bytes for each in self._known())

    def taken_by(self, owner: str) -> int:
        """Bytes of the files that a user has sent, unfinished ones too, and of their names.

        Each file counts once, whoever else has it.
        """
        own = [each for each in self._known() if each.upload.owner == owner]
        whole = {each.upload: each.file_bytes for each in own}
        parts = self._partial.glob(f"*.{_tag(owner)}")
        names = sum(each.name_bytes for each in own)
        return sum(whole.values()) + sum(map(_size, parts)) + names

    def append(self, upload: Upload, offset: int, data: bytes) -> None:
        """Put bytes at their place in an upload."""
        path = self.partial(upload)
        with path.open("r+b" if path.exists() else "wb") as file:
            file.seek(offset)
            file.write(data)
            file.truncate()

    def discard(self, upload: Upload) -> None:
        """Forget what has come of an upload."""
        self.partial(upload).unlink(missing_ok=True)

    def partial(self, upload: Upload) -> Path:
        """Where an upload is received."""
        return self._partial / f"{upload.sha256}.{_tag(upload.owner)}"

    def adopt(self, upload: Upload) -> None:
        """Make an upload that is whole one of the stored files, durably; it takes the place of an equal one."""
        path = self.partial(upload)
        sync(path)
        target = self._file(upload.sha256)
        path.replace(target)
        sync(target.parent)

    def name(self, dataset: Dataset) -> None:
        """Give a stored file a name, durably."""
        path = self._name(dataset.id)
        temporary = path.with_name(f".{path.name}")
        text = dataset.model_dump_json().encode()
        temporary.write_bytes(text)
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
        self._named[dataset.id] = _named(dataset, len(text))

    def unname(self, dataset_id: str) -> None:
        """Take a name away, durably."""
        self._name(dataset_id).unlink(missing_ok=True)
        sync(self._names)
        self._named.pop(dataset_id, None)

    def drop_unnamed(self, sha256: str) -> None:
        """Remove a file that no name refers to."""
        if not self._is_named(sha256):
            self._file(sha256).unlink(missing_ok=True)

    def _is_named(self, sha256: str) -> bool:
        return any(each.upload.sha256 == sha256 for each in self._known())

    def _known(self) -> Collection[_Named]:
        """What the names stand for, as it is now: threads give and take names meanwhile."""
        return self._named.copy().values()

    def _name(self, dataset_id: str) -> Path:
        return self._names / f"{dataset_id}.json"

    def _file(self, sha256: str) -> Path:
        return self._files / f"{sha256}.safetensors"


def _named(dataset: Dataset, name_bytes: int) -> _Named:
    return _Named(Upload(dataset.owner, dataset.sha256), dataset.size_bytes, name_bytes)


def _size(path: Path) -> int:
    """Bytes of a file; of one that has just gone, none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _tag(owner: str) -> str:
    """A user in the name of a file, whatever characters the user's name has."""
    return hashlib.sha256(owner.encode()).hexdigest()[:16]
