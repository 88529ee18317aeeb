"""A data set as one file: tensors in the safetensors format, and a manifest in its metadata.

The format (https://github.com/huggingface/safetensors) is eight bytes of length, little-endian, a header in JSON that
says type, shape and place of each tensor, then their bytes; it is written here by hand, as it takes so little.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from dropnorm.datasets.errors import InvalidData
from dropnorm.spec import DatasetManifest
from dropnorm.spec._base import problems_of

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    Array = NDArray[numpy.generic]

_TYPES = {"float32": "F32", "uint8": "U8", "int64": "I64"}
_ALIGNMENT = 8


def manifest_of(**fields: Any) -> DatasetManifest:
    """A manifest of fields that come from a user.

    Raises:
        InvalidData: a name is empty, too long, not printable, or stands there twice.
    """
    try:
        return DatasetManifest(**fields)
    except ValidationError as error:
        text = "; ".join(f"{field}: {message}" for field, message in problems_of(error)[:3])
        raise InvalidData(f"{text}.") from error


@dataclass(frozen=True)
class Bundle:
    """A data set ready to be written.

    Attributes:
        manifest: what its tensors do not tell.
        arrays: `x` and `y`, and of a data set with a test split of its own `test_x` and `test_y`; float32, uint8 or
            int64, in C order.
    """

    manifest: DatasetManifest
    arrays: Mapping[str, Array]

    def __post_init__(self) -> None:
        for part in {"", *(name.removesuffix("x") for name in self.arrays if name == "test_x")}:
            x, y = (self.arrays[f"{part}{name}"] for name in "xy")
            if len(x) != len(y):
                raise InvalidData(
                    f"{part}X has {len(x)} rows and {part}y has {len(y)}; give as many."
                )
            if not len(x):
                raise InvalidData("There are no samples.")


def write_bundle(bundle: Bundle, path: Path) -> str:
    """Write a data set's file; its SHA-256 (hex)."""
    place, header = 0, {}
    ordered = sorted(bundle.arrays.items(), key=lambda item: (-item[1].itemsize, item[0]))
    for name, array in ordered:
        end = place + array.nbytes
        header[name] = {
            "dtype": _TYPES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [place, end],
        }
        place = end
    manifest = bundle.manifest.model_dump_json(exclude_defaults=False)
    text = json.dumps({"__metadata__": {"dropnorm": manifest}, **header}).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        contents = (_bytes(array) for _, array in ordered)
        parts: tuple[bytes | memoryview, ...] = (len(text).to_bytes(8, "little"), text, *contents)
        for part in parts:
            file.write(part)
            digest.update(part)
    return digest.hexdigest()


def _bytes(array: Array) -> memoryview:
    """An array's values as they stand in memory, in C order."""
    import numpy

    return numpy.ascontiguousarray(array).reshape(-1).view(numpy.uint8).data
