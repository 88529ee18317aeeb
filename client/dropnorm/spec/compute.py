"""Where and how exactly a job computes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from dropnorm.spec._base import Bool, Int, Problem, SpecModel


class Compute(SpecModel):
    """The device and the arithmetic."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`cuda` asks for GPUs, `cpu` for none, `auto` takes a GPU where the service has one."""
    gpus: Annotated[Int, Field(ge=0, le=1024)] | None = None
    """GPUs the job needs, 0 to 1024; absent: one with `cuda`, none with `cpu`, and one under `auto` where there is
    any. More than the service has is refused at once."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Arithmetic of forward and backward pass; the 16-bit forms run under autocast with float32 weights, float16 with
    loss scaling on a GPU only."""
    compile: Bool = False
    """Compile the model with torch.compile; pays off from minutes of training on. Dropout then draws other random
    numbers, so a compiled training is not the numbers of one that is not."""
    deterministic: Bool = True
    """Use deterministic algorithms only, so that spec and seed give identical numbers on the same device."""

    def _rules(self) -> Iterator[Problem]:
        if self.device == "cpu" and self.gpus:
            yield Problem("gpus", "a job on the cpu takes no GPUs; leave gpus out or choose cuda")
        if self.device == "cuda" and self.gpus == 0:
            yield Problem(
                "gpus", "a job on cuda needs at least one GPU; leave gpus out or choose cpu"
            )
        if self.precision == "float16" and self.device != "cuda":
            yield Problem("precision", "float16 needs a GPU: choose device cuda, or bfloat16")
