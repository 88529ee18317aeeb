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
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from dropnorm.results import Dataset
from dropnorm_service.datasets.ledger import Ledger
from dropnorm_service.datasets.uploads import Upload, size_of
from dropnorm_service.durable import sync

NOTHING: Mapping[Upload, int] = {}


class DatasetFiles:
    """One folder of uploaded data sets. One server writes. Methods wait for the disk unless they say otherwise.

    Args:
        folder: made when it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._names, self._files = folder / "names", folder / "files"
        self._partial = folder / "partial"
        for part in (self._names, self._files, self._partial):
            part.mkdir(parents=True, exist_ok=True)
        self._ledger = Ledger()
        for dataset_id in [path.stem for path in self._names.glob("[a-z]*.json")]:
            if (found := self.get(dataset_id)) is not None:
                self._ledger.name(found, size_of(self._name(dataset_id)) or 0)
        for path in self._files.iterdir():
            self._ledger.look_at_file(path)
        for path in self._partial.iterdir():
            self._ledger.look_at_part(path)

    def sweep(self) -> None:
        """Remove what a crash left: files without a name, and names that were not written to their end."""
        for temporary in self._names.glob(".*"):
            temporary.unlink(missing_ok=True)
        for path in self._files.iterdir():
            self.drop_unnamed(path.stem)

    def stale(self, before: float) -> Iterator[Path]:
        """What nobody went on with: uploads, and files without a name, that last grew before a time.

        Args:
            before: seconds since 1970.
        """
        for folder in (self._partial, self._files):
            for path in folder.iterdir():
                if self._is_stale(path, before):
                    yield path

    def drop_stale(self, path: Path, before: float) -> None:
        """Remove one of those, unless it has grown or has got a name meanwhile."""
        if self._is_stale(path, before):
            path.unlink(missing_ok=True)
        if path.parent == self._files:
            self._ledger.look_at_file(path)
        else:
            self._ledger.look_at_part(path)

    def _is_stale(self, path: Path, before: float) -> bool:
        if path.parent == self._files and self._ledger.is_named(path.stem):
            return False
        try:
            return path.stat().st_mtime < before
        except FileNotFoundError:  # it went without our help
            return False

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
        """Every id, in order; without the disk."""
        return self._ledger.ids()

    def sent(self, upload: Upload) -> Path | None:
        """The file, if its sender has a data set of it; without the disk."""
        return self._file(upload.sha256) if self._ledger.is_sent(upload) else None

    def received(self, upload: Upload) -> int:
        """Bytes of a file that its sender need not send again."""
        return size_of(self.sent(upload) or self.partial(upload)) or 0

    def datasets(self, expected: Mapping[Upload, int] = NOTHING) -> int:
        """How many data sets there are, with uploads that are not finished and those expected; without the disk.

        Args:
            expected: sizes in bytes of files that come now.
        """
        return self._ledger.datasets(expected)

    def datasets_of(self, owner: str, expected: Mapping[Upload, int] = NOTHING) -> int:
        """Likewise, a user's."""
        return self._ledger.datasets_of(owner, expected)

    def total(self, expected: Mapping[Upload, int] = NOTHING) -> int:
        """Bytes of all files and names, unfinished ones too, when what is expected has come; without the disk."""
        return self._ledger.total(expected)

    def taken_by(self, owner: str, expected: Mapping[Upload, int] = NOTHING) -> int:
        """Likewise, of what a user has sent. Each file counts once, whoever else has it."""
        return self._ledger.taken_by(owner, expected)

    def append(self, upload: Upload, offset: int, data: bytes) -> None:
        """Put bytes at their place in an upload."""
        path = self.partial(upload)
        with path.open("r+b" if path.exists() else "wb") as file:
            file.seek(offset)
            file.write(data)
            file.truncate()
        self._ledger.look_at_part(path)

    def copy(self, upload: Upload, source: Path) -> None:
        """Let a file of this machine be what has come of an upload."""
        path = self.partial(upload)
        shutil.copyfile(source, path)
        self._ledger.look_at_part(path)

    def discard(self, upload: Upload) -> None:
        """Forget what has come of an upload."""
        self.partial(upload).unlink(missing_ok=True)
        self._ledger.look_at_part(self.partial(upload))

    def partial(self, upload: Upload) -> Path:
        """Where an upload is received."""
        return self._partial / upload.file_name

    def adopt(self, upload: Upload) -> None:
        """Make an upload that is whole one of the stored files, durably; it takes the place of an equal one."""
        path = self.partial(upload)
        sync(path)
        target = self._file(upload.sha256)
        path.replace(target)
        self._ledger.look_at_file(target)
        self._ledger.look_at_part(path)
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
        self._ledger.name(dataset, len(text))

    def unname(self, dataset_id: str) -> None:
        """Take a name away, durably."""
        self._name(dataset_id).unlink(missing_ok=True)
        sync(self._names)
        self._ledger.unname(dataset_id)

    def drop_unnamed(self, sha256: str) -> None:
        """Remove a file that no name refers to."""
        if not self._ledger.is_named(sha256):
            self._file(sha256).unlink(missing_ok=True)
            self._ledger.look_at_file(self._file(sha256))

    def _name(self, dataset_id: str) -> Path:
        return self._names / f"{dataset_id}.json"

    def _file(self, sha256: str) -> Path:
        return self._files / f"{sha256}.safetensors"
