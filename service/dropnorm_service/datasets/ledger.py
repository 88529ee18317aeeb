"""How much is kept, counted as it changes, so that no question goes through all that there is."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

from dropnorm.results import Dataset
from dropnorm_service.datasets.uploads import Upload, size_of, tag_of

Key = TypeVar("Key")


class _Named(NamedTuple):
    """What a name stands for, and the bytes of its file and of itself."""

    upload: Upload
    file_bytes: int
    name_bytes: int


class _Sizes:
    """Bytes of things by their names, and of all together."""

    def __init__(self) -> None:
        self.of: dict[str, int] = {}
        self.total = 0

    def put(self, name: str, size: int | None) -> None:
        """Note a thing; None: it is gone."""
        self.total += (size or 0) - self.of.pop(name, 0)
        if size is not None:
            self.of[name] = size


class Ledger:
    """Names, files and uploads that are not finished, with their owners. For use by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._named: dict[str, _Named] = {}
        self._names_of: Counter[Upload] = Counter()
        self._uses: Counter[str] = Counter()  # names of each file, whoever has sent it
        self._owned: Counter[str] = Counter()  # data sets of each user
        self._bytes: Counter[str] = Counter()  # of each user's files and names
        self._name_bytes = 0
        self._files, self._parts = _Sizes(), _Sizes()
        self._parts_of: defaultdict[str, _Sizes] = defaultdict(_Sizes)

    def name(self, dataset: Dataset, name_bytes: int) -> None:
        """A data set has its name, or its name says something else now."""
        upload = Upload(dataset.owner, dataset.sha256)
        with self._lock:
            self._take(dataset.id)
            self._named[dataset.id] = _Named(upload, dataset.size_bytes, name_bytes)
            self._count(self._named[dataset.id], 1)

    def unname(self, dataset_id: str) -> None:
        """A name is gone."""
        with self._lock:
            self._take(dataset_id)

    def look_at_file(self, path: Path) -> None:
        """A stored file has come or gone."""
        with self._lock:  # so that the last one who looked has seen what is there
            self._files.put(path.name, size_of(path))

    def look_at_part(self, path: Path) -> None:
        """What has come of an upload has grown, or is gone."""
        with self._lock:
            size = size_of(path)
            self._parts.put(path.name, size)
            owner = path.name.rpartition(".")[2]
            self._parts_of[owner].put(path.name, size)
            if not self._parts_of[owner].of:
                del self._parts_of[owner]

    def ids(self) -> list[str]:
        """The id of each data set, in order."""
        with self._lock:
            return sorted(self._named)

    def is_named(self, sha256: str) -> bool:
        """Whether a file has a name."""
        with self._lock:  # while it is noted anew it is without for a moment
            return self._uses[sha256] > 0

    def is_sent(self, upload: Upload) -> bool:
        """Whether a user has a data set of a file that he has sent."""
        with self._lock:
            return self._names_of[upload] > 0

    def datasets(self, expected: Mapping[Upload, int]) -> int:
        """Data sets, uploads that are not finished, and those that are expected."""
        with self._lock:
            return len(self._named) + len(self._parts.of.keys() | _names(expected))

    def datasets_of(self, owner: str, expected: Mapping[Upload, int]) -> int:
        """Likewise, those of a user."""
        with self._lock:
            parts = self._parts_of.get(tag_of(owner), _Sizes()).of.keys()
            own = {each: size for each, size in expected.items() if each.owner == owner}
            return self._owned[owner] + len(parts | _names(own))

    def total(self, expected: Mapping[Upload, int]) -> int:
        """Bytes of all files, unfinished ones too, and of all names, when what is expected has come."""
        with self._lock:
            there = self._files.total + self._parts.total + self._name_bytes
            return there + sum(self._missing(*each) for each in expected.items())

    def taken_by(self, owner: str, expected: Mapping[Upload, int]) -> int:
        """Likewise, of what a user has sent. Each file counts once, whoever else has it."""
        with self._lock:
            there = self._bytes[owner] + self._parts_of.get(tag_of(owner), _Sizes()).total
            own = (each for each in expected.items() if each[0].owner == owner)
            return there + sum(self._missing(*each) for each in own)

    def _missing(self, upload: Upload, size: int) -> int:
        """Bytes that are to come; who announces less than is there frees nothing by it."""
        if self._names_of[upload]:
            return 0
        return max(0, size - self._parts.of.get(upload.file_name, 0))

    def _take(self, dataset_id: str) -> None:
        if (known := self._named.pop(dataset_id, None)) is not None:
            self._count(known, -1)

    def _count(self, named: _Named, sign: int) -> None:
        upload, owner = named.upload, named.upload.owner
        had = self._names_of[upload] > 0
        _add(self._names_of, upload, sign)
        _add(self._uses, upload.sha256, sign)
        _add(self._owned, owner, sign)
        _add(self._bytes, owner, sign * named.name_bytes)
        self._name_bytes += sign * named.name_bytes
        if had != (self._names_of[upload] > 0):  # the first name of the file, or its last
            _add(self._bytes, owner, sign * named.file_bytes)


def _names(expected: Mapping[Upload, int]) -> set[str]:
    return {each.file_name for each in expected}


def _add(counter: Counter[Key], key: Key, count: int) -> None:
    """Add to a counter that shall not grow by what has gone."""
    counter[key] += count
    if not counter[key]:
        del counter[key]
