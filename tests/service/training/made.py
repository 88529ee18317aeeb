"""Small data sets made up for tests: files in their original formats, and tensors."""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from dropnorm import spec as dn
from dropnorm.results import CheckpointWritten, Payload
from dropnorm_service.training import SplitData
from dropnorm_service.training.data import Dataset, DatasetInfo, split
from dropnorm_service.training.data.bundled import Bundled
from dropnorm_service.training.data.cifar import CifarBinary
from dropnorm_service.training.data.idx import IdxFiles
from dropnorm_service.training.data.info import PinnedFile, Source
from dropnorm_service.training.data.tokens import BOS, EOS, PAD, SPECIAL, Vocabulary

CPU = torch.device("cpu")

IDX_NAMES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


def info(
    *input_shape: int, outputs: int = 3, samples: int, source: Source | None = None, **parts: Any
) -> DatasetInfo:
    """A data set's facts; a classification unless `task` says otherwise."""
    values: dict[str, Any] = {"name": "made", "task": "classification", **parts}
    if values["task"] == "classification":
        values["class_names"] = tuple(f"class {label}" for label in range(outputs))
    return DatasetInfo(
        input_shape=input_shape,
        outputs=outputs,
        samples=samples,
        source=source or Bundled("load_nothing"),
        **values,
    )


def classification(
    *input_shape: int, classes: int = 3, samples: int = 200, distance: float = 1.0
) -> Dataset:
    """Classes around centres of their own; at distance 0 there is nothing to learn but noise."""
    torch.manual_seed(3)
    y = torch.arange(samples) % classes
    centres = distance * torch.randn(classes, *input_shape)
    x = 5.0 + 2.0 * (centres[y] + torch.randn(samples, *input_shape))
    facts = info(*input_shape, outputs=classes, samples=samples)
    return Dataset(facts, "0" * 64, {"x": x, "y": y})


def regression(*input_shape: int, targets: int = 1, samples: int = 200) -> Dataset:
    """Targets that are linear in the inputs, far from mean 0 and deviation 1."""
    torch.manual_seed(4)
    x = torch.randn(samples, *input_shape)
    y = 100.0 + 30.0 * (x.flatten(1)[:, :targets] + 0.1 * torch.randn(samples, targets))
    facts = info(*input_shape, outputs=targets, samples=samples, task="regression")
    return Dataset(facts, "0" * 64, {"x": x, "y": y})


def text(*, length: int = 12, samples: int = 200, labelled: bool = False) -> Dataset:
    """Sequences of one of ten words, now and then another, padded; with labels, which half the word is of."""
    torch.manual_seed(5)
    word = torch.randint(0, 10, (samples, 1))
    slips = torch.rand(samples, length) < 0.1
    words = torch.where(slips, torch.randint(0, 10, (samples, length)), word)
    lengths = torch.randint(length // 2, length + 1, (samples, 1))
    x = torch.where(torch.arange(length) < lengths, len(SPECIAL) + words, PAD)
    x[:, 0] = BOS
    facts = info(
        length,
        outputs=2 if labelled else 0,
        samples=samples,
        task="classification" if labelled else "masked_language_modelling",
        vocabulary=Vocabulary(tuple("abcdefghij")),
    )
    y = word[:, 0] // 5 if labelled else torch.empty(samples, 0, dtype=torch.int64)
    return Dataset(facts, "0" * 64, {"x": x, "y": y})


def pairs(*, length: int = 6, samples: int = 200) -> Dataset:
    """Sequences of up to `length` of ten words, padded, and the same in reverse, from `BOS` to `EOS`."""
    torch.manual_seed(6)
    words = len(SPECIAL) + torch.randint(0, 10, (samples, length))
    lengths = torch.randint(1, length + 1, (samples,))
    x = torch.where(torch.arange(length) < lengths[:, None], words, PAD)
    y = torch.full((samples, length + 2), PAD)
    y[:, 0] = BOS
    for sample, count in enumerate(lengths.tolist()):
        y[sample, 1 : count + 1] = x[sample, :count].flip(0)
        y[sample, count + 1] = EOS
    vocabulary = Vocabulary(tuple("abcdefghij"))
    facts = info(
        length,
        outputs=len(vocabulary),
        samples=samples,
        task="sequence_to_sequence",
        vocabulary=vocabulary,
        target_vocabulary=vocabulary,
        target_length=length + 2,
    )
    return Dataset(facts, "0" * 64, {"x": x, "y": y})


def split_of(spec: dn.TrainingSpec, dataset: Dataset) -> SplitData:
    """The data set's splits on the CPU."""
    return split(spec, dataset, CPU)


def idx(values: torch.Tensor) -> bytes:
    """Bytes in the IDX format."""
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    return header + values.to(torch.uint8).numpy().tobytes()


def idx_dataset(folder: Path, *, name: str = "made") -> DatasetInfo:
    """60 training and 20 test images of 4 x 5 pixels in 3 classes, written as four gzipped files."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(1)
    contents = []
    for samples in (60, 20):
        contents.append(idx(torch.randint(0, 256, (samples, 4, 5), generator=generator)))
        contents.append(idx(torch.randint(0, 3, (samples,), generator=generator)))
    for file, content in zip(IDX_NAMES, contents, strict=True):
        (folder / file).write_bytes(gzip.compress(content, mtime=0))
    source = IdxFiles(tuple(pinned(folder / file) for file in IDX_NAMES))
    return info(1, 4, 5, samples=60, test_samples=20, source=source, name=name)


def cifar_files(per_file: int = 4) -> dict[str, bytes]:
    """The six files of CIFAR-10's binary version, with images of 3 x 2 x 2 in 3 classes."""
    generator = torch.Generator().manual_seed(2)
    files = {}
    for name in (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"):
        labels = torch.randint(0, 3, (per_file, 1), generator=generator)
        pixels = torch.randint(0, 256, (per_file, 12), generator=generator)
        files[name] = torch.cat([labels, pixels], dim=1).to(torch.uint8).numpy().tobytes()
    return files


def tar(members: Iterable[tuple[str, bytes]]) -> bytes:
    """A gzipped tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def cifar_info(per_file: int = 4, archive: PinnedFile | None = None) -> DatasetInfo:
    """The facts of `cifar_files`."""
    source = CifarBinary(archive or PinnedFile("cifar-10-binary.tar.gz", 0, ""))
    return info(3, 2, 2, samples=5 * per_file, test_samples=per_file, source=source)


def pinned(path: Path) -> PinnedFile:
    """A file's name, size and sum as they are."""
    content = path.read_bytes()
    return PinnedFile(path.name, len(content), hashlib.sha256(content).hexdigest())


def of_kind(events: Iterable[Payload], kind: type[Any]) -> list[Any]:
    """The events of one kind."""
    return [event for event in events if isinstance(event, kind)]


def checkpoints_told(events: Iterable[Payload]) -> list[tuple[int, int]]:
    """Epochs and steps of each checkpoint that was told of, which each took some time and room."""
    written = of_kind(events, CheckpointWritten)
    assert all(each.seconds > 0.0 and each.size_bytes > 0 for each in written)
    return [(each.epoch, each.step) for each in written]
