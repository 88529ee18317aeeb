"""What callers hand over as inputs, and what travels."""

from __future__ import annotations

from array import array

import numpy as np
import pandas as pd
import pytest
import torch

import dropnorm as dn
from dropnorm._arrays import joined, pieces

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
    ],
    ids=["float32", "float64", "float16", "big", "columns", "torch", "pandas", "lists", "tuples"],
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
        ([[2**70]], "of numbers alone"),
        (np.array(3.0), "not a single number"),
        (np.array([[1j]]), "not of type complex128"),
        (np.array([["a"]], dtype=object), "not of type object"),
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
