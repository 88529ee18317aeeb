"""Files that are whole or not there: written beside their place, made durable, then renamed."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from dropnorm_service.durable import sync


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder, which takes the place of `path` when the block ends well.

    The content is on the disk before the rename, and the rename before this returns. After an error
    the old file, if any, is still there and the temporary one is gone.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def clear_leftovers(folder: Path, of: str = "*") -> None:
    """Remove what processes left that were killed while they wrote a file; nobody else may write one there now.

    Args:
        folder: where the files lie.
        of: their name, or a pattern; whatever else is hidden in the folder stays.
    """
    for leftover in folder.glob(f".{of}.*"):
        with suppress(OSError):
            leftover.unlink()


def write_json(path: Path, value: Any) -> None:
    """Write plain data as JSON, readable by people."""
    write_bytes(path, (json.dumps(value, indent=1) + "\n").encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file in one piece."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> str:
    """Write tensors by name as safetensors; from a GPU they are copied one by one.

    The library's own function tells of a full disk without saying which error it was, and leaves the checksum
    to another pass over the file.

    Returns:
        SHA-256 (hex) of what was written.

    Raises:
        OSError: it cannot be written.
    """
    # The largest elements first, so that each tensor lies at a multiple of its own element's size.
    ordered = sorted(tensors.items(), key=lambda each: (-each[1].element_size(), each[0]))
    digest = hashlib.sha256()
    with replacing(path) as temporary, temporary.open("wb") as file:
        for piece in _pieces(ordered):
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def _pieces(ordered: Sequence[tuple[str, torch.Tensor]]) -> Iterator[memoryview | bytes]:
    """A file's bytes: the header's length, the header in JSON, padded, then each tensor's values."""
    header: dict[str, Any] = {}
    start = 0
    for name, tensor in ordered:
        end = start + tensor.numel() * tensor.element_size()
        shape = list(tensor.shape)
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": shape,
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for _, tensor in ordered:
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        yield flat.view(torch.uint8).numpy().data
