"""A data set, split, standardised and on the device: what a training works on."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from dropnorm.results import DatasetSummary
from dropnorm.spec import TrainingSpec
from dropnorm_service.training.data.info import DatasetInfo
from dropnorm_service.training.data.splits import Indices, split_indices, summarize
from dropnorm_service.training.data.standardization import Standardization, measure
from dropnorm_service.training.data.tokens import Vocabulary

EXAMPLES = 5


@dataclass(frozen=True)
class Dataset:
    """A data set in its raw form, on the CPU.

    Attributes:
        info: what it is.
        digest: SHA-256 (hex) of its content.
        tensors: `x` and `y`, and of a data set with a test split of its own `test_x` and `test_y`.
    """

    info: DatasetInfo
    digest: str
    tensors: Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Split:
    """The samples of one split on the device.

    Attributes:
        x: standardised inputs, float32 `[samples, *input_shape]`, or tokens, int64.
        y: classes, int64 `[samples]`; standardised targets, float32 `[samples, outputs]`; or tokens, int64
            `[samples, target_length]`.
    """

    x: torch.Tensor
    y: torch.Tensor

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class SplitData:
    """The three splits of a data set and how they came to be.

    Attributes:
        train, validation, test: the splits.
        inputs: the standardisation of the inputs; None of tokens.
        targets: that of the targets; None but in regression.
        examples: a few raw inputs of the test split, `[n, *input_shape]`, float32 or tokens, on the CPU.
        vocabularies: those of input and target, where they are tokens.
        summary: what the data is.
        seconds: wall time it took to get here.
    """

    train: Split
    validation: Split
    test: Split
    inputs: Standardization | None
    targets: Standardization | None
    examples: torch.Tensor
    vocabularies: tuple[Vocabulary | None, Vocabulary | None]
    summary: DatasetSummary
    seconds: float

    @property
    def device(self) -> torch.device:
        """Where the splits are."""
        return self.train.x.device

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.summary.input_shape

    @property
    def outputs(self) -> int:
        """Number of classes or regression targets."""
        return self.summary.outputs


def split(
    spec: TrainingSpec, dataset: Dataset, device: torch.device, *, started: float | None = None
) -> SplitData:
    """Split a data set as the spec asks, and bring it to the device.

    Args:
        spec: gives shares, seed and standardisation.
        dataset: the raw data.
        device: where to.
        started: `time.perf_counter()` from which `seconds` counts; absent: now.

    Raises:
        InvalidSpecError: the spec asks for what the data set does not have.
    """
    started = time.perf_counter() if started is None else started
    info, mode = dataset.info, spec.data.standardization
    summary = summarize(spec, info, dataset.digest)
    train, validation, test = raw_splits(spec, dataset)
    inputs = None if info.vocabulary else measure(train.x, mode).to(device)
    targets = measure(train.y, mode).to(device) if info.task == "regression" else None

    def prepared(raw: Split) -> Split:
        y = raw.y.to(device, copy=True)  # the raw one may be a mapped file
        x = raw.x.to(device)
        return Split(inputs(x) if inputs else x, targets(y) if targets else y)

    return SplitData(
        train=prepared(train),
        validation=prepared(validation),
        test=prepared(test),
        inputs=inputs,
        targets=targets,
        examples=test.x[:EXAMPLES].to(torch.float32 if inputs else test.x.dtype, copy=True),
        vocabularies=(info.vocabulary, info.target_vocabulary),
        summary=summary,
        seconds=time.perf_counter() - started,
    )


def raw_splits(spec: TrainingSpec, dataset: Dataset) -> tuple[Split, Split, Split]:
    """Training, validation and test split of a spec as they come, on the CPU; parts of a mapped file."""
    x, y = dataset.tensors["x"], dataset.tensors["y"]
    classes = y.numpy() if dataset.info.task == "classification" else None
    indices = split_indices(spec, dataset.info, classes)

    def part(of: Indices) -> Split:
        chosen = torch.from_numpy(of)
        return Split(x.index_select(0, chosen), y.index_select(0, chosen))

    test = (
        Split(dataset.tensors["test_x"], dataset.tensors["test_y"])
        if indices.test is None
        else part(indices.test)
    )
    return part(indices.train), part(indices.validation), test
