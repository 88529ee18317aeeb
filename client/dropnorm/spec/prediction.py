"""What a model is asked with: arrays of numbers, and predictions with dropout on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from dropnorm.spec._base import Int, Problem, SpecModel

Dtype = Literal["float32", "uint8", "int64"]

MAX_TENSOR_BYTES = 16 * 2**20
"""Bytes of one Tensor; more is asked for in several calls."""

ITEM_BYTES: Mapping[Dtype, int] = {"float32": 4, "uint8": 1, "int64": 8}
_FORMATS: Mapping[Dtype, str] = {"float32": "f", "uint8": "B", "int64": "q"}
_TYPES: Mapping[Dtype, str] = {"float32": "<f4", "uint8": "|u1", "int64": "<i8"}


class Tensor(SpecModel):
    """Numbers in a rectangular arrangement: `numpy.asarray(tensor)` and `tensor.tolist()` give them."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    shape: Annotated[tuple[Annotated[Int, Field(ge=0, lt=2**31)], ...], Field(max_length=8)]
    """Length of each dimension, 0 to 2^31 - 1; at most 8 dimensions."""
    dtype: Dtype
    """Type of the numbers."""
    data: Annotated[bytes, Field(max_length=MAX_TENSOR_BYTES, repr=False)]
    """The numbers themselves, the last dimension's next to each other, each little-endian; at most 16 MiB."""

    def _rules(self) -> Iterator[Problem]:
        wanted = prod(self.shape) * ITEM_BYTES[self.dtype]
        if len(self.data) != wanted:
            yield Problem(
                "data",
                f"{self.dtype} of shape {list(self.shape)} is {wanted} bytes, not {len(self.data)}; "
                "give shape and type of the numbers that you send",
            )

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 0

    def tolist(self) -> Any:
        """The numbers as lists in lists."""
        if 0 in self.shape or not self.shape:
            return []
        # Of several dimensions a view is made from its bytes alone.
        view: Any = memoryview(self.data)
        return view.cast(_FORMATS[self.dtype], list(self.shape)).tolist()

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """What numpy makes an array of, without a copy."""
        return {
            "version": 3,
            "shape": self.shape,
            "typestr": _TYPES[self.dtype],
            "data": self.data,
        }


class DropoutSampling(SpecModel):
    """Predictions with dropout on: several passes, each with units dropped anew, and their spread.

    Gal & Ghahramani 2016. Batch norm keeps its running statistics. What is dropped for an input follows from the seed
    and the input's place alone, so that inputs may be sent in pieces of any size; only where batch norm keeps no
    running statistics does every prediction depend on the inputs beside it.
    """

    samples: Annotated[Int, Field(ge=2, le=1000)] = 50
    """Passes, 2 to 1,000."""
    seed: Annotated[Int, Field(ge=0, lt=2**53)] = 0
    """Seed of what is dropped, 0 to 2^53 - 1: the same seed and inputs give the same answer."""
    offset: Annotated[Int, Field(ge=0, lt=2**53)] = 0
    """Place of the first input among those that it was sent with in pieces, 0 to 2^53 - 1."""
