"""Splits: every sample in one of them, in proportion, the same everywhere and for ever."""

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.service.training.made import info
from tests.service.training.shorthand import mlp, problems

from dropnorm import spec as dn
from dropnorm_service.training.data.splits import (
    SplitIndices,
    split_indices,
    split_sizes,
    summarize,
)


def spec(seed: int = 0, **data: Any) -> dn.TrainingSpec:
    return mlp(4, data=dn.Data(dataset="made", **data), seed=seed)


def parts(indices: SplitIndices) -> list[list[int]]:
    assert indices.test is not None
    return [part.tolist() for part in (indices.train, indices.validation, indices.test)]


@given(
    samples=st.integers(3, 300),
    classes=st.integers(1, 7),
    stratify=st.booleans(),
    validation_share=st.floats(0.01, 0.6),
    test_share=st.none() | st.floats(0.01, 0.39),
    seed=st.integers(0, 2**63 - 1),
)
def test_splits_are_disjoint_whole_and_of_the_planned_sizes(
    samples, classes, stratify, validation_share, test_share, seed
):
    facts = info(4, outputs=classes, samples=samples)
    asked = spec(seed, stratify=stratify, validation_share=validation_share, test_share=test_share)
    sizes = split_sizes(asked, facts)
    assume(sizes.train >= 1)
    labels = np.arange(samples) % classes
    train, validation, test = parts(split_indices(asked, facts, labels))

    assert sorted(train + validation + test) == list(range(samples))
    assert (len(train), len(validation), len(test)) == (sizes.train, sizes.validation, sizes.test)
    if stratify:
        counts = np.bincount(labels, minlength=classes)
        surplus = np.bincount(labels[test], minlength=classes) - counts * (sizes.test / samples)
        assert np.abs(surplus).max() < 1.0


def test_the_documented_rule_is_followed():
    """Test is what hashes lowest: splitmix64 in plain integers."""
    seed = int.from_bytes(hashlib.sha256(b"7/split").digest()[:8], "big")

    def splitmix64(state: int) -> int:
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ state >> 27) * 0x94D049BB133111EB % 2**64
        return state ^ state >> 31

    order = sorted(range(50), key=lambda index: splitmix64((seed + index) % 2**64))
    split = split_indices(spec(7, stratify=False), info(4, samples=50), None)
    assert parts(split) == [sorted(order[16:]), sorted(order[10:16]), sorted(order[:10])]


def test_the_split_seed_decides_and_otherwise_the_jobs():
    facts = info(4, samples=100)
    assert parts(split_indices(spec(1), facts)) != parts(split_indices(spec(2), facts))
    same = [parts(split_indices(spec(seed, split_seed=9), facts)) for seed in (1, 2)]
    assert same[0] == same[1] == parts(split_indices(spec(9), facts))


def test_the_test_split_does_not_depend_on_the_rest():
    facts = info(4, samples=100)
    default = split_indices(spec(), facts)
    other = split_indices(spec(validation_share=0.5), facts)
    fewer = split_indices(spec(train_samples=10), facts)
    assert parts(default)[2] == parts(other)[2] == parts(fewer)[2]
    assert parts(default)[1] == parts(fewer)[1]
    assert len(fewer.train) == 10
    assert set(fewer.train) <= set(default.train)


def test_few_training_samples_are_drawn_from_every_class():
    facts = info(4, outputs=4, samples=400)
    labels = np.repeat([0, 1, 2, 3], 100)
    train = split_indices(spec(train_samples=8), facts, labels).train
    assert np.bincount(labels[train]).tolist() == [2, 2, 2, 2]


def test_a_test_split_of_its_own_is_used():
    facts = info(4, samples=100, test_samples=30)
    split = split_indices(spec(), facts)
    assert split.test is None
    assert len(split.train) + len(split.validation) == 100
    assert summarize(spec(), facts).test_samples == 30


@pytest.mark.parametrize(
    ("facts", "data", "field", "says"),
    [
        (
            info(4, samples=90, test_samples=9),
            {"test_share": 0.2},
            "test_share",
            "9 samples of its own",
        ),
        (info(4, samples=100), {"train_samples": 69}, "train_samples", "leaves 68 samples"),
        (info(4, samples=2), {}, "validation_share", "none is left to train on"),
    ],
)
def test_what_the_data_does_not_have_is_refused(facts, data, field, says):
    with pytest.raises(dn.InvalidSpecError) as raised:
        summarize(spec(**data), facts)
    assert says in problems(raised.value)[f"data.{field}"]
