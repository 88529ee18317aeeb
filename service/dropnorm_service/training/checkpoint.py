"""Checkpoints on the disk: tensors as safetensors, everything else as JSON, no pickle.

    folder/000007.safetensors       the tensors
    folder/000007.json              everything else, written after it: what makes the pair a checkpoint

The newest two are kept, and each holds the best weights besides the current ones. Each file is written beside its
place, made durable and renamed, so a crash at any moment leaves the checkpoint before; a damaged one is told by its
sums, and one of another version of this form by its number.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from dropnorm.results import Warned
from dropnorm_service.durable import sha256_of, sync
from dropnorm_service.training._files import clear_leftovers, write_bytes, write_tensors

FORMAT = 1
"""Which form the files have. Another version that reads and writes the same facts and tensors has the same number."""

_LARGEST_MANIFEST = 1 << 28
"""Bytes: a hundred thousand epochs with their metrics take a third of it, and the most reports of layers a fifth."""
_NAME = re.compile(r"[0-9]{6,18}")


@dataclass(frozen=True)
class Snapshot:
    """The content of a checkpoint.

    Attributes:
        tensors: by name.
        facts: everything else, as plain data.
    """

    tensors: Mapping[str, torch.Tensor]
    facts: Mapping[str, Any]

    def copied(self) -> Snapshot:
        """The same in memory of its own on the host, which a training that goes on leaves as it is."""
        tensors = {
            name: tensor.detach().to("cpu", copy=True) for name, tensor in self.tensors.items()
        }
        return Snapshot(tensors, self.facts)


class Unusable(Exception):
    """A checkpoint that cannot be gone on from.

    Attributes:
        code: of the warning, UPPER_SNAKE.
        why: what is the matter with it, to go behind "it".
    """

    def __init__(self, code: str, why: str) -> None:
        super().__init__(why)
        self.code, self.why = code, why


def damaged(why: object) -> Unusable:
    """It is not what was written."""
    return Unusable("CHECKPOINT_DAMAGED", f"is damaged ({why})")


class Checkpoints:
    """The checkpoints of one training.

    Args:
        folder: where they lie, made when it is missing; no other training's.
        interval_seconds: time between two periodic ones, for who writes them.
    """

    def __init__(self, folder: Path, *, interval_seconds: float = 30.0) -> None:
        self.folder = folder
        self.interval_seconds = interval_seconds
        self._passed_over = 0
        self._newest: int | None = None

    def only_read(self, *, passed_over: int = 0) -> Checkpoints:
        """The same folder, for a training that writes no periodic ones.

        Args:
            passed_over: how many of the newest it does not read.
        """
        same = Checkpoints(self.folder, interval_seconds=math.inf)
        same._passed_over = passed_over
        return same

    @property
    def empty(self) -> bool:
        """Whether none has been written, or all are gone."""
        return not self._numbers()

    def write(self, snapshot: Snapshot) -> int:
        """Write a checkpoint durably, then remove all but it and the last one that was written or read; its bytes.

        Raises:
            OSError: it cannot be written, or is too large to be read again; what was there is there still.
        """
        self._make_folder()
        numbers = self._numbers()
        number = max(numbers, default=0) + 1
        path = self._manifest(number)
        tensors = path.with_suffix(".safetensors")
        content = {
            "format": FORMAT,
            "tensors_sha256": write_tensors(tensors, snapshot.tensors),
            "tensors_bytes": tensors.stat().st_size,
            "facts": snapshot.facts,
        }
        manifest = _signed(json.dumps(content).encode())
        if len(manifest) > _LARGEST_MANIFEST:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        write_bytes(path, manifest)
        for each in numbers:
            if each != (numbers[-1] if self._newest is None else self._newest):
                self._remove(each)
        self._newest = number
        return tensors.stat().st_size + len(manifest)

    def read(
        self, check: Callable[[Snapshot], None] = lambda snapshot: None
    ) -> tuple[Snapshot | None, list[Warned]]:
        """The newest checkpoint that can be gone on from, on the CPU, and a warning of each newer one.

        Args:
            check: looks whether a whole one is the training's; raises Unusable if not, and it is passed over too.
        """
        warnings: list[Warned] = []
        clear_leftovers(self.folder)
        newest_first = self._numbers()[::-1]
        for number in newest_first[self._passed_over :]:
            path = self._manifest(number)
            try:
                snapshot = _read(path)
                check(snapshot)
            except Unusable as error:
                text = f"Checkpoint {path.stem} {error.why}; it is passed over."
                warnings.append(Warned(code=error.code, message=text))
            else:
                self._newest = number
                return snapshot, warnings
        return None, warnings

    def _make_folder(self) -> None:
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True, exist_ok=True)
            sync(self.folder.parent)

    def _numbers(self) -> list[int]:
        names = (path.stem for path in self.folder.glob("*.json"))
        known = (name for name in names if _NAME.fullmatch(name) and f"{int(name):06}" == name)
        return sorted(map(int, known))

    def _manifest(self, number: int) -> Path:
        return self.folder / f"{number:06}.json"

    def _remove(self, number: int) -> None:
        path = self._manifest(number)
        for each in (
            path,
            path.with_suffix(".safetensors"),
        ):  # without the first the other is no checkpoint
            with suppress(FileNotFoundError, IsADirectoryError, PermissionError):
                each.unlink()


def _read(path: Path) -> Snapshot:
    """Read a checkpoint. Its sizes are looked at first, and its sums before anything is made of it.

    Raises:
        Unusable: it is damaged, or of another version.
    """
    tensors = path.with_suffix(".safetensors")
    try:
        if _size(path) > _LARGEST_MANIFEST:
            raise damaged(f"{path.name} is larger than any that is written")
        signed = path.read_bytes()
        if signed != _signed(b"{" + signed[len(_signed(b"{")) :]):
            raise damaged("its checksum differs")
        content = json.loads(signed)
        if content["format"] != FORMAT:
            version = "a later" if content["format"] > FORMAT else "an earlier"
            raise Unusable(
                "CHECKPOINT_OF_OTHER_VERSION",
                f"was written by {version} version of the service, in form {content['format']} where this one has "
                f"{FORMAT}",
            )
        if _size(tensors) != content["tensors_bytes"]:
            raise damaged(f"{tensors.name} has another size")
        if sha256_of(tensors) != content["tensors_sha256"]:
            raise damaged(f"the checksum of {tensors.name} differs")
        return Snapshot(load_file(tensors), content["facts"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        raise damaged(_told(error)) from error


def _size(path: Path) -> int:
    """Bytes of a file; a link, a pipe or a folder in its place is none, and is not waited for.

    Raises:
        ValueError: it is no file.
    """
    found = os.lstat(path)
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{path.name} is no file")
    return found.st_size


def _told(error: Exception) -> str:
    """An error without the path of the service's folder, which is not for the journal to tell."""
    return error.strerror or type(error).__name__ if isinstance(error, OSError) else str(error)


def _signed(content: bytes) -> bytes:
    """A JSON object with the checksum of its other bytes as its first member, so that no byte can change unnoticed."""
    checksum = hashlib.sha256(content).hexdigest()
    return b'{"sha256": "' + checksum.encode() + b'", ' + content[1:]
