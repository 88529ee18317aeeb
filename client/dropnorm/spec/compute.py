"""Where and how exactly a job computes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from dropnorm.spec._base import Bool, Float, Int, Problem, SpecModel


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
    time_limit: Annotated[Float, Field(ge=1.0, le=1e7)] | None = None
    """Seconds that the training may take, 1 to 10,000,000: all attempts together, without the time in the queue;
    absent: as long as the service allows. At the limit it ends with TIME_LIMIT; its checkpoint and history are kept."""
    idle_limit: Annotated[Float, Field(ge=1.0, le=1e6)] | None = None
    """Seconds in which the training must come further, by a step, an epoch or a phase, 1 to 1,000,000; absent: any
    time, as long as it shows signs of life. Beyond it the worker counts as hung, and another goes on."""

    def _rules(self) -> Iterator[Problem]:
        if self.device == "cpu" and self.gpus:
            yield Problem("gpus", "a job on the cpu takes no GPUs; leave gpus out or choose cuda")
        if self.device == "cuda" and self.gpus == 0:
            yield Problem(
                "gpus", "a job on cuda needs at least one GPU; leave gpus out or choose cpu"
            )
        if self.precision == "float16" and self.device != "cuda":
            yield Problem("precision", "float16 needs a GPU: choose device cuda, or bfloat16")
