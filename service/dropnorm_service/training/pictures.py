"""Pictures that a training leaves beside its model: samples and reconstructions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from dropnorm_service.training._files import clear_leftovers, write_tensors

_FILE = "pictures.safetensors"

Pictures = Mapping[str, Tensor]
"""Name -> images, uint8 `[images, height, width, 3]`, on the CPU."""


def images(values: Tensor) -> Tensor:
    """`[images, channels, height, width]`, 0 to 1 -> the images of `Pictures`.

    Of one or two channels the first is shown in grey, of more the first three as red, green and blue.
    """
    shown = values[:, :3] if values.shape[1] >= 3 else values[:, :1].expand(-1, 3, -1, -1)
    levels = (shown.float().clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)
    return levels.permute(0, 2, 3, 1).contiguous().cpu()


def save_pictures(folder: Path, pictures: Pictures) -> None:
    """Write pictures into the folder of a saved model, if there are any."""
    if pictures:
        clear_leftovers(folder, of=_FILE)
        write_tensors(folder / _FILE, dict(pictures))


def load_pictures(folder: Path) -> Pictures:
    """The pictures beside a saved model; most have none."""
    path = folder / _FILE
    return load_file(path) if path.exists() else {}
