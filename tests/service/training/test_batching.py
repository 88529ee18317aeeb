"""Batches cover a split exactly, and an epoch's order is a function of seed and epoch alone."""

import pytest
import torch

from dropnorm_service.training.batching import Batching, derived_seed, epoch_order


@pytest.mark.parametrize("last_batch", ["keep", "drop"])
@pytest.mark.parametrize(("samples", "size"), [(10, 3), (9, 3), (2, 3), (1, 1), (257, 128)])
def test_slices_are_the_batches_of_a_plain_loop(samples, size, last_batch):
    batching = Batching.of(samples, size, last_batch)

    batches = [range(samples)[start : start + size] for start in range(0, samples, size)]
    if last_batch == "drop" and len(batches) > 1 and len(batches[-1]) < size:
        batches.pop()
    assert [range(samples)[part] for part in batching.slices] == batches
    assert batching.steps_per_epoch == len(batches)
    assert batching.last_batch_size == len(batches[-1])
    assert batching.samples_per_epoch == sum(map(len, batches))


def test_a_split_smaller_than_a_batch_is_one_batch_even_when_rests_are_dropped():
    assert Batching.of(5, 8, "drop").slices == (slice(0, 5),)


@pytest.mark.parametrize(("samples", "size"), [(0, 1), (1, 0)])
def test_nothing_to_cut_is_refused(samples, size):
    with pytest.raises(ValueError, match="cannot cut"):
        Batching.of(samples, size)


def test_an_order_is_a_permutation_and_a_function_of_seed_and_epoch():
    order = epoch_order(100, seed=7, epoch=1)

    assert sorted(order.tolist()) == list(range(100))
    torch.manual_seed(123)
    assert torch.equal(order, epoch_order(100, seed=7, epoch=1))
    assert not torch.equal(order, epoch_order(100, seed=7, epoch=2))
    assert not torch.equal(order, epoch_order(100, seed=8, epoch=1))


def test_a_derived_seed_follows_the_documented_rule():
    # printf 7/order/3 | sha256sum
    assert derived_seed(7, "order", 3) == 0x19CD16803FEF73EA
