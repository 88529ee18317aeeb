"""One of several processes that normalise a batch together: a script, `python -m`, for the tests of that."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from dropnorm.spec import layers
from dropnorm_service.training.layers import BLUEPRINTS

STEPS = 3
CUTS = {(8, 3): 3, (8, 3, 4, 5): 5}
"""Shapes of a whole batch, and how many of its samples are the first process's."""
FORMS: dict[str, dict[str, Any]] = {
    "exponential": {"momentum": 0.3},
    "cumulative": {"averaging": "cumulative"},
    "plain": {"affine": False, "track_running_stats": False},
}
"""Settings of the batch norm besides `synchronized`."""


def passed(shape: tuple[int, ...], form: str, share: slice) -> dict[str, Tensor]:
    """What comes of some steps over a share of each batch, and one frozen at the end, of a loss that sums over samples.

    Outputs and gradients of inputs are those of the share; gradients of gamma and beta are its part of them.
    """
    settings = layers.BatchNorm(synchronized=True, **FORMS[form])
    norm = BLUEPRINTS["batch_norm"](settings, shape[1:]).make()
    generator = torch.Generator().manual_seed(3)
    for parameter in norm.parameters():
        nn.init.uniform_(parameter, generator=generator)
    found: dict[str, Tensor] = {}
    for step in range(STEPS + 1):
        whole, slopes = (torch.randn(shape, generator=generator) for _ in range(2))
        x = (100.0 + 2.0 * whole)[share].requires_grad_()
        norm.train(step < STEPS)  # as an epoch in which it is frozen
        y = norm(x)
        (y.sigmoid() * slopes[share]).sum().backward()
        assert x.grad is not None
        found |= {f"{step} output": y.detach(), f"{step} input gradient": x.grad}
    found |= {f"gradient of {name}": each.grad for name, each in norm.named_parameters()}  # type: ignore[misc]
    return found | {f"buffer {name}": each for name, each in norm.named_buffers()}


def main(folder: Path, rank: int, count: int) -> None:
    """Join the others and write what comes of each form to `<folder>/<rank>.pt`."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    distributed.init_process_group(
        "gloo",
        init_method=(folder / "meeting").absolute().as_uri(),
        rank=rank,
        world_size=count,
        timeout=timedelta(seconds=120),
    )
    found = {
        (shape, form): passed(shape, form, slice(cut) if rank == 0 else slice(cut, None))
        for shape, cut in CUTS.items()
        for form in FORMS
    }
    torch.save(found, folder / f"{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
