"""The binary version of CIFAR-10 (Krizhevsky 2009): one label byte, then 3072 bytes of red, green and blue.

Five training files and one test file, inside the published archive or unpacked. The archive is
read in place: none of its members is ever written to a disk.
"""

from __future__ import annotations

import gzip
import math
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch

from dropnorm_service.training.data.idx import bad_byte, readable
from dropnorm_service.training.data.info import DatasetInfo, PinnedFile
from dropnorm_service.training.errors import BadData

_TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
_TEST = "test_batch.bin"
_BLOCK = 1 << 20


@dataclass(frozen=True)
class CifarBinary:
    """The archive, or its six files unpacked in the folder or in `cifar-10-batches-bin`."""

    archive: PinnedFile

    @property
    def files(self) -> tuple[PinnedFile, ...]:
        """The archive."""
        return (self.archive,)

    def find(self, folder: Path) -> Sequence[Path]:
        """The six files, or else the archive."""
        for place in (folder, folder / "cifar-10-batches-bin"):
            unpacked = [place / name for name in (*_TRAIN, _TEST)]
            if all(path.is_file() for path in unpacked):
                return unpacked
        archive = folder / self.archive.name
        return (archive,) if archive.is_file() else ()

    def parse(self, paths: Sequence[Path], info: DatasetInfo) -> dict[str, torch.Tensor]:
        """Read the six files; every size and label must be what the data set's should be."""
        record = 1 + math.prod(info.input_shape)
        samples = {name: info.samples // len(_TRAIN) for name in _TRAIN} | {
            _TEST: info.test_samples
        }
        sizes = {name: count * record for name, count in samples.items()}
        files = dict(_members(paths[0], sizes) if len(paths) == 1 else _unpacked(paths, sizes))
        train = [_records(*files[name], sizes[name], info) for name in _TRAIN]
        test_x, test_y = _records(*files[_TEST], sizes[_TEST], info)
        return {
            "x": torch.cat([x for x, _ in train]),
            "y": torch.cat([y for _, y in train]),
            "test_x": test_x,
            "test_y": test_y,
        }


File = tuple[Path, bytearray]


def _unpacked(paths: Sequence[Path], sizes: dict[str, int]) -> Iterator[tuple[str, File]]:
    for path in paths:
        with readable(path), path.open("rb") as file:
            yield path.name, (path, bytearray(file.read(sizes[path.name] + 1)))


def _members(archive: Path, sizes: dict[str, int]) -> Iterator[tuple[str, File]]:
    missing = set(sizes)
    try:
        with gzip.open(archive) as whole, tarfile.open(fileobj=whole, mode="r|") as members:
            for member in members:
                name = _safe(archive, member)
                if name not in missing or not (file := members.extractfile(member)):
                    continue
                missing.remove(name)
                yield name, (archive / name, bytearray(file.read(sizes[name] + 1)))
            _read_to_the_end(whole)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise BadData(
            f"{archive.name} is no whole gzipped tar archive ({error}). Replace the file.",
            file=archive,
        ) from error
    if missing:
        raise BadData(
            f"{archive.name} lacks {', '.join(sorted(missing))}. Take the binary version of CIFAR-10, "
            "not the one for Python or Matlab.",
            file=archive,
        )


def _read_to_the_end(whole: gzip.GzipFile) -> None:
    """To where the checksum of all that was read is: tarfile stops before it, and takes damage for the end."""
    while whole.read(_BLOCK):
        pass


def _safe(archive: Path, member: tarfile.TarInfo) -> str:
    """The last part of a member's name, refusing an archive that points outside of itself."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or not (member.isfile() or member.isdir()):
        raise BadData(
            f"{archive.name} holds {member.name!r}, which is outside of it or no plain file, so "
            "nothing in it can be trusted. Replace the file.",
            file=archive,
            member=member.name,
        )
    return path.name


def _records(
    path: Path, content: bytearray, size: int, info: DatasetInfo
) -> tuple[torch.Tensor, torch.Tensor]:
    if len(content) != size:
        ends = "ends before" if len(content) < size else "goes on after"
        raise bad_byte(path, min(len(content), size), f"it {ends} its {size} bytes")
    record = 1 + math.prod(info.input_shape)
    records = torch.frombuffer(content, dtype=torch.uint8).view(-1, record)
    labels = records[:, 0]
    wrong = (labels >= info.outputs).nonzero()
    if len(wrong):
        first = int(wrong[0])
        raise bad_byte(
            path, first * record,
            f"label {int(labels[first])} is above {info.outputs - 1}, the last class",
        )  # fmt: skip
    return records[:, 1:].reshape(-1, *info.input_shape), labels.to(torch.int64)
