"""Dropout of single units (Srivastava et al. 2014), and what makes up for the dropped ones."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Rescaling = Literal["inverted", "at_inference", "l2_norm"]


def dropout(
    x: Tensor, rate: float, rescaling: Rescaling = "inverted", *, training: bool = True
) -> Tensor:
    """Drop each unit with probability `rate` in training; a rate of 0 is off in every form.

    With m the mask of kept units (1 with probability `1 - rate`, else 0) and ||.|| the 2-norm over
    all values of one sample:

    | rescaling      | training              | evaluation       |
    |----------------|-----------------------|------------------|
    | `inverted`     | `m * x / (1 - rate)`  | `x`              |
    | `at_inference` | `m * x`               | `(1 - rate) * x` |
    | `l2_norm`      | `m * x / norm(m * x)` | `x / norm(x)`    |

    A sample of which nothing is left stays zero under `l2_norm`. `inverted` is
    `torch.nn.functional.dropout` itself, random numbers included; the other two draw theirs as it
    does on a CPU, so that all three drop the same units there under the same seed.

    Args:
        x: `[batch, ...]`, floating point.
        rate: share of units dropped, from 0 to below 1.
        rescaling: what makes up for the dropped units.
        training: whether units are dropped.

    Returns:
        A tensor like `x`.
    """
    if rate == 0.0:
        return x
    if rescaling == "inverted":
        return F.dropout(x, rate, training)
    kept = x * torch.empty_like(x).bernoulli_(1.0 - rate) if training else x
    if rescaling == "l2_norm":
        return _unit_norm(kept)
    return kept if training else kept * (1.0 - rate)


def _unit_norm(x: Tensor) -> Tensor:
    # The squares of 16-bit floats overflow where the norm itself would not.
    precision = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else None
    values = tuple(range(1, x.dim()))
    norm = torch.linalg.vector_norm(x, dim=values, keepdim=True, dtype=precision)
    # Dividing a zero vector by 1 keeps its gradient finite; a small epsilon would make it enormous.
    return torch.div(x, norm.masked_fill(norm == 0.0, 1.0)).to(x.dtype)


class Dropout(nn.Module):
    """`dropout` as a module. `rate` is an ordinary attribute and may change between steps."""

    def __init__(self, rate: float, rescaling: Rescaling = "inverted") -> None:
        super().__init__()
        self.rate = rate
        self.rescaling: Rescaling = rescaling

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.rate, self.rescaling, training=self.training)

    def extra_repr(self) -> str:
        return f"rate={self.rate}, rescaling={self.rescaling}"
