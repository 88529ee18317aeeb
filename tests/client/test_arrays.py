"""What callers hand over as inputs, and what travels."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
import torch

import dropnorm as dn
from dropnorm._arrays import joined, packed


def pieces(given: object, batch_size: int | None) -> Iterator[dn.Tensor]:
    whole = packed(given)
    count = whole.inputs_of_a_call(batch_size)
    return (whole.cut(start, count) for start in range(0, len(whole), count))


FLOATS = np.arange(6, dtype=np.float32).reshape(3, 2)


@pytest.mark.parametrize(
    "given",
    [
        FLOATS,
        FLOATS.astype(np.float64),
        FLOATS.astype(np.float16),
        FLOATS.astype(">f4"),
        np.asfortranarray(FLOATS),
        torch.from_numpy(FLOATS).requires_grad_(),
        pd.DataFrame(FLOATS),
        FLOATS.tolist(),
        [tuple(row) for row in FLOATS.tolist()],
        list(FLOATS),
        [torch.from_numpy(row) for row in FLOATS],
        [list(row) for row in FLOATS],
        torch.from_numpy(FLOATS).bfloat16(),
        FLOATS.astype(object),
        pd.DataFrame(FLOATS).astype("Float64"),
        pd.DataFrame(
            {"a": pd.array([0, 2, 4], "Int64"), "b": pd.array([1.0, 3.0, 5.0], "Float64")}
        ),
    ],
    ids=[
        *("float32", "float64", "float16", "big", "columns", "torch", "pandas", "lists", "tuples"),
        *("rows", "tensors", "scalars", "bfloat16", "objects", "nullable", "mixed"),
    ],
)
def test_floats_of_any_kind_travel_as_float32(given):
    [tensor] = pieces(given, None)
    assert (tensor.dtype, tensor.shape) == ("float32", (3, 2))
    assert tensor.tolist() == FLOATS.tolist()
    assert np.array_equal(np.asarray(tensor), FLOATS)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint16", "uint32"])
def test_whole_numbers_travel_as_int64(dtype):
    [tensor] = pieces(FLOATS.astype(dtype), None)
    assert (tensor.dtype, tensor.tolist()) == ("int64", FLOATS.astype(int).tolist())


def test_bytes_travel_as_bytes_and_lists_of_whole_numbers_as_int64():
    assert next(pieces(FLOATS.astype(np.uint8), None)).dtype == "uint8"
    assert next(pieces(FLOATS > 2, None)).tolist() == (FLOATS > 2).astype(int).tolist()
    assert next(pieces([[1, 2]], None)).dtype == "int64"
    assert next(pieces(array("d", [1.0, 2.5]), None)).tolist() == [1.0, 2.5]


def test_many_inputs_are_cut_into_pieces_and_put_together_again():
    big = np.random.default_rng(0).random((5000, 1000), dtype=np.float32)
    parts = list(pieces(big, None))
    assert len(parts) == 3
    assert np.array_equal(np.asarray(joined(parts)), big)
    assert [len(part) for part in pieces(FLOATS, 2)] == [2, 1]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("text", "not str"),
        (None, "not NoneType"),
        ([[1, 2], [3]], "of one length"),
        ([["a"]], "of numbers alone"),
        (np.array(3.0), "not a single number"),
        (np.array([[1j]]), "not of type complex128"),
        (np.array([["a"]], dtype=object), "of numbers alone: input 0 has a"),
        (np.array([[1], [None]], dtype=object), "of numbers alone: input 1 has None"),
        (np.zeros((1,) * 9), "of at most 8 dimensions, not 9"),
        (np.ma.masked_invalid([[1.0, np.nan]]), "not a masked array"),
        (torch.zeros(2, 2).to_sparse(), "torch.sparse_coo"),
        (torch.zeros(2, 2, device="meta"), "on meta"),
        ([np.zeros(2), np.zeros(3)], "whose arrays are of one shape"),
        (np.array([["2020-01-01"]], dtype="datetime64[D]"), "not of type datetime64"),
    ],
)
def test_what_is_no_array_is_named(given, text):
    with pytest.raises(dn.InvalidRequest, match=text) as caught:
        list(pieces(given, None))
    assert [problem.field for problem in caught.value.problems] == ["inputs"]


def test_a_tensor_whose_bytes_do_not_fit_its_shape_is_none():
    with pytest.raises(ValueError, match="is 24 bytes, not 8"):
        dn.Tensor(shape=(3, 2), dtype="float32", data=bytes(8))


def test_a_tensor_goes_through_json():
    [tensor] = pieces(FLOATS, None)
    assert dn.Tensor.model_validate_json(tensor.model_dump_json()) == tensor


@pytest.mark.parametrize(
    "given",
    [
        np.array([[0.0, 1.0], [2.0, 1e300]]),
        np.array([[0.0, 1.0], [2.0, np.nan]], dtype=np.float32),
        np.array([[0, 1], [2, 2**64 - 1]], dtype=np.uint64),
        torch.tensor([[0.0, 1.0], [2.0, float("inf")]]),
        [[0.0, 1.0], [2.0, 1e300]],
        [[0, 1], [2, 2**70]],
        [array("d", [0.0]), array("d", [float("nan")])],
        np.array([[0.5, 1], [2, 10**400]], dtype=object),
    ],
    ids=["float64", "nan", "uint64", "torch", "lists", "long", "buffers", "object"],
)
def test_numbers_that_no_type_holds_are_named_by_their_input(given):
    if isinstance(given[0], array):
        given = [list(each) for each in given]
    with pytest.raises(dn.InvalidRequest, match=r"input 1 has .*, which is no") as caught:
        packed(given)
    assert [problem.field for problem in caught.value.problems] == ["inputs.data"]


def test_lists_of_whole_scalars_travel_as_int64():
    assert packed([[np.int64(3), np.int64(2**53 + 1)]]).dtype == "int64"
    assert packed([np.array([1, 2])]).dtype == "int64"
    assert packed(pd.DataFrame({"a": pd.array([1, 2], "Int64")})).dtype == "int64"


@pytest.mark.parametrize("batch_size", [-1, "a", 2.5, True, 0])
def test_a_batch_size_that_is_none_is_named(batch_size):
    with pytest.raises(dn.InvalidRequest, match="1 or more, or None, not") as caught:
        packed(FLOATS).inputs_of_a_call(batch_size)
    assert [problem.field for problem in caught.value.problems] == ["batch_size"]
