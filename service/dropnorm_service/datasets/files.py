"""Data sets on the disk: files by their content, names beside them, and what has come so far of an upload.

    folder/names/<id>.json               a `Dataset`: what it is and which file holds it
    folder/files/<sha256>.safetensors    its file, which never changes
    folder/partial/<sha256>              the first bytes of a file that is being uploaded

A name is written after its file is whole and checked, and a file goes with its last name; a crash in between leaves
a file without a name, which the next start removes.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from pathlib import Path

from dropnorm.results import Dataset
from dropnorm_service.durable import sync


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

    def sweep(self) -> None:
        """Remove what a crash left: files without a name, and names that were not written to their end."""
        for temporary in self._names.glob(".*"):
            temporary.unlink(missing_ok=True)
        used = {each.sha256 for each in self.all()}
        for path in self._files.iterdir():
            if path.stem not in used:
                path.unlink(missing_ok=True)

    def expire(self, before: float, *, keep: Container[str]) -> None:
        """Remove what nobody went on with: uploads, and files without a name, that last grew before a time.

        Args:
            before: seconds since 1970.
            keep: SHA-256 (hex) of files that somebody works on now.
        """
        stale = [
            path
            for folder in (self._partial, self._files)
            for path in folder.iterdir()
            if path.stem not in keep and path.stat().st_mtime < before
        ]
        used = {each.sha256 for each in self.all()} if stale else set()
        for path in stale:
            if path.parent == self._partial or path.stem not in used:
                path.unlink(missing_ok=True)

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

    def file(self, sha256: str) -> Path | None:
        """The file of this content, if it is there whole."""
        path = self._file(sha256)
        return path if path.exists() else None

    def received(self, sha256: str) -> int:
        """Bytes of a file that need not be sent again."""
        path = self.file(sha256) or self._partial / sha256
        try:
            return path.stat().st_size
        except FileNotFoundError:
            return 0

    def total(self) -> int:
        """Bytes of all files, unfinished ones too."""
        folders = (self._files, self._partial)
        return sum(path.stat().st_size for folder in folders for path in folder.iterdir())

    def append(self, sha256: str, offset: int, data: bytes) -> None:
        """Put bytes at their place in an upload."""
        path = self._partial / sha256
        with path.open("r+b" if path.exists() else "wb") as file:
            file.seek(offset)
            file.write(data)
            file.truncate()

    def discard(self, sha256: str) -> None:
        """Forget what has come of an upload."""
        (self._partial / sha256).unlink(missing_ok=True)

    def partial(self, sha256: str) -> Path:
        """Where an upload is received."""
        return self._partial / sha256

    def adopt(self, path: Path, sha256: str) -> Path:
        """Make a whole file that lies in `partial` one of the stored files, durably."""
        sync(path)
        target = self._file(sha256)
        path.replace(target)
        sync(target.parent)
        return target

    def name(self, dataset: Dataset) -> None:
        """Give a stored file a name, durably."""
        path = self._name(dataset.id)
        temporary = path.with_name(f".{path.name}")
        temporary.write_text(dataset.model_dump_json(), "utf-8")
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)

    def unname(self, dataset_id: str) -> None:
        """Take a name away, durably."""
        self._name(dataset_id).unlink(missing_ok=True)
        sync(self._names)

    def drop_unnamed(self, sha256: str) -> None:
        """Remove a file that no name refers to."""
        if not any(each.sha256 == sha256 for each in self.all()):
            self._file(sha256).unlink(missing_ok=True)

    def _name(self, dataset_id: str) -> Path:
        return self._names / f"{dataset_id}.json"

    def _file(self, sha256: str) -> Path:
        return self._files / f"{sha256}.safetensors"
