"""One parsed data set on the disk: safetensors named by their content, and a small index beside.

    folder/index.json               what is there, and from which files it was read
    folder/<sha256>.safetensors     the tensors, opened by memory mapping
    folder/lock                     held by the process that writes

A file that changed in size or time since it was written is checked against its digest when it is
opened. Checking it each time would cost what memory mapping saves.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from dropnorm_service.training._files import clear_leftovers, write_json, write_tensors

_FORMAT = 1
"""Counts up when a parser makes something else of the same files."""
_LOCK_POLL_SECONDS = 0.05

_log = logging.getLogger(__name__)

Stamp = tuple[str, int, int]
"""Name, size in bytes and time of change in nanoseconds of a file."""
Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Index:
    """What an entry says of itself.

    Attributes:
        digest: SHA-256 (hex) of the content, see `content_digest`.
        stamp: the file with the tensors.
        sources: the original files it was read from; none: they are not kept.
        format: version of the form.
    """

    digest: str
    stamp: Stamp
    sources: tuple[Stamp, ...]
    format: int = _FORMAT


class Entry:
    """One data set's folder in the cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def index(self, sources: Sequence[Path]) -> Index | None:
        """What is there; None when that is nothing, or was read from other files than `sources`.

        Without sources (they were moved away, say) whatever is there will do.
        """
        try:
            fields = json.loads(self._index_path.read_text(encoding="utf-8"))
            index = Index(
                digest=str(fields["digest"]),
                stamp=_stamp_from(fields["stamp"]),
                sources=tuple(_stamp_from(source) for source in fields["sources"]),
                format=int(fields["format"]),
            )
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError):
            _log.warning("%s is damaged and is made anew.", self._index_path)
            return None
        stamps = tuple(stamp_of(path) for path in sources)
        return index if index.format == _FORMAT and stamps in ((), index.sources) else None

    def open(self, index: Index) -> Tensors | None:
        """The tensors, memory mapped; None when their file is missing or damaged."""
        path = self.folder / index.stamp[0]
        try:
            tensors, stamp = _mapped(path), stamp_of(path)
        except (OSError, SafetensorError):
            _log.warning("%s is missing or damaged and is made anew.", path)
            return None
        if stamp != index.stamp:
            if content_digest(tensors) != index.digest:
                _log.warning("%s is damaged and is made anew.", path)
                return None
            # Only spares the next look at the content; the folder may be one to read alone.
            with suppress(OSError):
                self._write_index(Index(index.digest, stamp, index.sources))
        return tensors

    def write(self, tensors: Tensors, sources: Sequence[Path]) -> tuple[str, Tensors]:
        """Replace what is there; the digest, and the tensors as `open` gives them. The caller holds the lock."""
        clear_leftovers(self.folder)
        digest = content_digest(tensors)
        path = self.folder / f"{digest}.safetensors"
        write_tensors(path, tensors)
        self._write_index(Index(digest, stamp_of(path), tuple(map(stamp_of, sources))))
        for old in self.folder.glob("*.safetensors"):
            if old != path:
                old.unlink(missing_ok=True)
        return digest, _mapped(path)

    @contextmanager
    def locked(self, while_waiting: Callable[[], None]) -> Iterator[None]:
        """Hold the entry's lock; made with the folder. The lock ends with the process, whatever ends it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    while_waiting()
                    time.sleep(_LOCK_POLL_SECONDS)
            yield

    @property
    def _index_path(self) -> Path:
        return self.folder / "index.json"

    def _write_index(self, index: Index) -> None:
        write_json(self._index_path, asdict(index))


def content_digest(tensors: Tensors) -> str:
    """SHA-256 (hex) over names, types, shapes and bytes: equal data, equal digest, whatever the file."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        header = f"{name} {tensor.dtype} {tuple(tensor.shape)}\n"
        digest.update(header.encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def stamp_of(path: Path) -> Stamp:
    """What changes when a file does."""
    status = path.stat()
    return path.name, status.st_size, status.st_mtime_ns


def _stamp_from(fields: Sequence[object]) -> Stamp:
    name, size, changed = fields
    return str(name), int(str(size)), int(str(changed))


def _mapped(path: Path) -> Tensors:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
