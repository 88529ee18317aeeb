"""Which GPUs there are. A process of its own finds out, since CUDA once used cannot be forked."""

from __future__ import annotations

import os
import socket

import torch

from dropnorm_service.workers.frames import encode
from dropnorm_service.workers.messages import Gpu, Inventory


def main(connection: socket.socket) -> None:
    """Say it and end."""
    connection.sendall(encode(Inventory(gpus=tuple(find_gpus()))))


def find_gpus() -> list[Gpu]:
    """The GPUs in CUDA's order, each with its name for CUDA_VISIBLE_DEVICES."""
    if not torch.cuda.is_available():
        return []
    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible is not None else [str(index) for index in range(count)]
    found = []
    for index, name in zip(range(count), names, strict=False):
        properties = torch.cuda.get_device_properties(index)
        found.append(
            Gpu(name=properties.name, memory_bytes=properties.total_memory, visible=name.strip())
        )
    return found
