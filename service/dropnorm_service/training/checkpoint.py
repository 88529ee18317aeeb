"""Checkpoints on the disk: tensors as safetensors, everything else as JSON, no pickle.

    folder/000007.safetensors       the tensors
    folder/000007.json              everything else, written after it: what makes the pair a checkpoint

The newest two are kept. Each file is written beside its place, made durable and renamed, so a crash
at any moment leaves the checkpoint before; a damaged one is told by its sum.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from dropnorm_service.durable import sha256_of
from dropnorm_service.training._files import write_json, write_tensors

_KEPT = 2
_COST_LIMIT = 0.01
"""Largest share of the time that periodic checkpoints may take."""


@dataclass(frozen=True)
class Snapshot:
    """The content of a checkpoint.

    Attributes:
        tensors: by name.
        facts: everything else, as plain data.
    """

    tensors: Mapping[str, torch.Tensor]
    facts: Mapping[str, Any]


class Checkpoints:
    """The checkpoints of one training.

    Args:
        folder: where they lie, made when it is missing; no other training's.
        interval_seconds: time between two periodic ones. They come less often when writing takes
            more than a hundredth of it.
    """

    def __init__(self, folder: Path, *, interval_seconds: float = 30.0) -> None:
        self.folder = folder
        self.interval_seconds = interval_seconds
        self._next = time.perf_counter() + interval_seconds

    def due(self, now: float) -> bool:
        """Whether it is time for a periodic one; `now` is `time.perf_counter()`."""
        return now >= self._next

    def write(self, snapshot: Snapshot) -> None:
        """Write a checkpoint durably, then remove all but the newest two."""
        started = time.perf_counter()
        self.folder.mkdir(parents=True, exist_ok=True)
        numbers = self._numbers()
        path = self._manifest(numbers[-1] + 1 if numbers else 1)
        tensors = path.with_suffix(".safetensors")
        write_tensors(tensors, snapshot.tensors)
        content = {"tensors_sha256": sha256_of(tensors), "facts": snapshot.facts}
        write_json(path, content | {"sha256": _sum(content)})
        for number in numbers[: 1 - _KEPT]:
            self._remove(number)
        ended = time.perf_counter()
        self._next = ended + max(self.interval_seconds, (ended - started) / _COST_LIMIT)

    def read(self) -> tuple[Snapshot | None, list[str]]:
        """The newest whole checkpoint, on the CPU, and a sentence on each newer one that is damaged."""
        problems: list[str] = []
        for left_over in self.folder.glob(".*"):  # by an attempt that was killed while it wrote
            left_over.unlink(missing_ok=True)
        for number in reversed(self._numbers()):
            path = self._manifest(number)
            try:
                return _read(path), problems
            except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
                problems.append(f"checkpoint {path.stem} is damaged ({error}) and is passed over")
        return None, problems

    def _numbers(self) -> list[int]:
        return sorted(int(path.stem) for path in self.folder.glob("[0-9]*.json"))

    def _manifest(self, number: int) -> Path:
        return self.folder / f"{number:06}.json"

    def _remove(self, number: int) -> None:
        path = self._manifest(number)
        path.unlink(missing_ok=True)  # first: without it the tensors are no checkpoint
        path.with_suffix(".safetensors").unlink(missing_ok=True)


def _read(path: Path) -> Snapshot:
    content = json.loads(path.read_text(encoding="utf-8"))
    tensors = path.with_suffix(".safetensors")
    if content.pop("sha256") != _sum(content) or content["tensors_sha256"] != sha256_of(tensors):
        raise ValueError("its checksum differs")
    return Snapshot(load_file(tensors), content["facts"])


def _sum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
