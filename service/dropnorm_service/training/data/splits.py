"""Which samples are for training, for validation and for the test.

Every sample gets a hash of the split seed and its own index; a split takes the samples of lowest hash.
So splits are the same on every platform and under every version of numpy and torch; the test split
does not depend on how much of the rest is held out for validation, nor either of them on
`train_samples`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from dropnorm.results import DatasetSummary
from dropnorm.spec import InvalidSpecError, Problem, TrainingSpec
from dropnorm_service.training.batching import derived_seed
from dropnorm_service.training.data.info import DatasetInfo
from dropnorm_service.training.tasks import task_of

DEFAULT_TEST_SHARE = 0.2

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class SplitSizes:
    """Samples per split."""

    train: int
    validation: int
    test: int


@dataclass(frozen=True)
class SplitIndices:
    """Indices of the samples per split, ascending; `test` is None where the data has its own."""

    train: Indices
    validation: Indices
    test: Indices | None


def summarize(spec: TrainingSpec, info: DatasetInfo, digest: str | None = None) -> DatasetSummary:
    """The data a spec will train on, known without reading it.

    Args:
        spec: the training.
        info: its data set.
        digest: SHA-256 of the data set's parsed content, where it is known.

    Raises:
        InvalidSpecError: the spec asks for what the data set does not have; every field is named.
    """
    problems = list(_problems(spec, info))
    if problems:
        raise InvalidSpecError(problems)
    sizes = split_sizes(spec, info)
    task = task_of(spec.architecture, info.task)
    whole = task in ("reconstruction", "generation")
    return DatasetSummary(
        name=info.name,
        task=task,
        digest=digest,
        input_shape=info.input_shape,
        outputs=prod(info.input_shape) if whole else info.outputs,
        class_names=info.class_names,
        sequences=info.sequences,
        train_samples=sizes.train,
        validation_samples=sizes.validation,
        test_samples=sizes.test,
    )


def split_sizes(spec: TrainingSpec, info: DatasetInfo) -> SplitSizes:
    """Shares become samples by rounding; validation and test get one sample at least."""
    data = spec.data
    test = info.test_samples or max(
        1, round(info.samples * (data.test_share or DEFAULT_TEST_SHARE))
    )
    rest = info.samples if info.test_samples else info.samples - test
    validation = max(1, round(rest * data.validation_share))
    train = rest - validation
    return SplitSizes(min(train, data.train_samples or train), validation, test)


def split_indices(
    spec: TrainingSpec, info: DatasetInfo, classes: Indices | None = None
) -> SplitIndices:
    """Draw the splits.

    The hash is the finalizer of splitmix64 (Steele, Lea & Flood 2014) of `derived_seed(seed, "split")`
    plus index plus its golden gamma. With `classes`, each split takes from every class in
    proportion, by largest remainder.

    Args:
        spec: gives seed, shares and whether to stratify.
        info: the data set.
        classes: class of each sample, int64 `[samples]`; None in regression.
    """
    seed = spec.seed if spec.data.split_seed is None else spec.data.split_seed
    rest = _shuffled(info.samples, derived_seed(seed, "split"))
    if classes is None or not spec.data.stratify:
        classes = np.zeros(info.samples, dtype=np.int64)
    sizes = split_sizes(spec, info)
    test = None
    if not info.test_samples:
        test, rest = _take(rest, classes, sizes.test)
    validation, rest = _take(rest, classes, sizes.validation)
    train, _ = _take(rest, classes, sizes.train)
    return SplitIndices(
        np.sort(train), np.sort(validation), None if test is None else np.sort(test)
    )


def _problems(spec: TrainingSpec, info: DatasetInfo) -> list[Problem]:
    problems = []
    data, sizes = spec.data, split_sizes(spec, info)
    if info.test_samples and data.test_share is not None:
        problems.append(
            Problem(
                "data.test_share",
                f"{info.name} comes with a test split of {info.test_samples} samples of its own; "
                "leave test_share out",
            )
        )
    if task_of(spec.architecture, info.task) == "generation" and info.task != "classification":
        problems.append(
            Problem(
                "data.dataset",
                f"generated images are judged in the features of a classifier, and {info.name} has no "
                "classes to train one on; choose labelled images",
            )
        )
    if sizes.train < 1:
        problems.append(
            Problem(
                "data.validation_share",
                f"of the {info.samples} samples of {info.name} none is left to train on; "
                "hold fewer out",
            )
        )
    elif (data.train_samples or 0) > sizes.train:
        problems.append(
            Problem(
                "data.train_samples",
                f"{info.name} leaves {sizes.train} samples to train on, not {data.train_samples}; "
                "give fewer or leave it out",
            )
        )
    return problems


def _shuffled(samples: int, seed: int) -> Indices:
    """All indices in the order of their hashes."""
    keys = np.arange(samples, dtype=np.uint64) + np.uint64(seed)
    keys += np.uint64(0x9E3779B97F4A7C15)  # wraps around, as everything here is modulo 2^64
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.argsort(keys ^ (keys >> np.uint64(31)), kind="stable")


def _take(order: Indices, classes: Indices, size: int) -> tuple[Indices, Indices]:
    """The first `size` samples of an order, from every class in proportion, and the rest of it."""
    present, members = np.unique(classes[order], return_inverse=True)
    counts = np.bincount(members, minlength=len(present))
    quota, remainder = np.divmod(counts * size, len(order))
    missing = size - int(quota.sum())
    quota[np.argsort(-remainder, kind="stable")[:missing]] += 1  # ties go to the lower class
    taken = np.zeros(len(order), dtype=bool)
    for label in range(len(present)):
        taken[np.flatnonzero(members == label)[: quota[label]]] = True
    return order[taken], order[~taken]
