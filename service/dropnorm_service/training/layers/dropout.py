"""Dropout of units and channels, multiplicative noise, and dropped branches."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Method = Literal["unit", "spatial", "gaussian", "alpha"]
Rescaling = Literal["inverted", "at_inference", "l2_norm"]

_SEQUENCE = 3
"""Dimensions of a batch of sequences, `[batch, tokens, features]`; no image and no vector has as many."""


def dropout(
    x: Tensor,
    rate: float,
    rescaling: Rescaling = "inverted",
    *,
    method: Method = "unit",
    training: bool = True,
) -> Tensor:
    """Drop each unit with probability `rate` in training; a rate of 0 is off in every form.

    With m the mask of kept units (1 with probability `1 - rate`, else 0) and ||.|| the 2-norm over
    all values of one sample, of a sequence `[batch, tokens, features]` over those of each token:

    | rescaling      | training              | evaluation       |
    |----------------|-----------------------|------------------|
    | `inverted`     | `m * x / (1 - rate)`  | `x`              |
    | `at_inference` | `m * x`               | `(1 - rate) * x` |
    | `l2_norm`      | `m * x / norm(m * x)` | `x / norm(x)`    |

    A sample of which nothing is left stays zero under `l2_norm`. `inverted` is
    `torch.nn.functional.dropout` itself, random numbers included; the other two draw theirs as it
    does on a CPU, so that all three drop the same units there under the same seed.

    `method` says what a unit is: a value (`unit`, Srivastava et al. 2014) or a channel of an image
    (`spatial`, Tompson et al. 2015; of a feature vector it is a value, of a sequence a feature over all its
    tokens). Two keep mean and variance by
    themselves, and evaluate to `x`: `gaussian` multiplies by `N(1, rate / (1 - rate))` (Srivastava et
    al. 2014, section 10), `alpha` drops to the negative saturation of SELU (Klambauer et al. 2017).

    Args:
        x: `[batch, ...]`, floating point.
        rate: share of units dropped, from 0 to below 1.
        rescaling: what makes up for the dropped units, under `unit` and `spatial`.
        method: what is dropped, and how.
        training: whether units are dropped.

    Returns:
        A tensor like `x`.
    """
    if rate == 0.0:
        return x
    if method == "alpha":
        return F.alpha_dropout(x, rate, training)
    if method == "gaussian":
        return _gaussian(x, rate) if training else x
    if method == "unit" and rescaling == "inverted":
        return F.dropout(x, rate, training)
    kept = x * _mask(x, rate, method) if training else x
    if rescaling == "l2_norm":
        return _unit_norm(kept)
    if rescaling == "inverted":
        return kept / (1.0 - rate) if training else kept
    return kept if training else kept * (1.0 - rate)


def stochastic_depth(x: Tensor, rate: float, *, training: bool = True) -> Tensor:
    """Drop a residual branch, sample by sample, with probability `rate` in training (Huang et al. 2016).

    What is kept is divided by `1 - rate`, so that evaluation, which keeps all, sees the same mean.

    Args:
        x: the branch's output, `[batch, ...]`.
        rate: share of samples whose branch is dropped, from 0 to below 1.
        training: whether anything is dropped.
    """
    if rate == 0.0 or not training:
        return x
    kept = x.new_empty(len(x), *(1 for _ in x.shape[1:])).bernoulli_(1.0 - rate)
    return x * kept / (1.0 - rate)


def _mask(x: Tensor, rate: float, method: Method) -> Tensor:
    """1 where a unit is kept and 0 where it is dropped; of channels, or a sequence's features, one value each."""
    if method == "spatial" and x.ndim == _SEQUENCE:
        x = x.new_empty(len(x), 1, x.shape[2])
    elif method == "spatial" and x.ndim > 2:
        x = x.new_empty(*x.shape[:2], *(1 for _ in x.shape[2:]))
    return torch.empty_like(x).bernoulli_(1.0 - rate)


def _gaussian(x: Tensor, rate: float) -> Tensor:
    return x * torch.empty_like(x).normal_(1.0, (rate / (1.0 - rate)) ** 0.5)


def _unit_norm(x: Tensor) -> Tensor:
    # The squares of 16-bit floats overflow where the norm itself would not.
    precision = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else None
    values = -1 if x.ndim == _SEQUENCE else tuple(range(1, x.ndim))
    norm = torch.linalg.vector_norm(x, dim=values, keepdim=True, dtype=precision)
    # Dividing a zero vector by 1 keeps its gradient finite; a small epsilon would make it enormous.
    return torch.div(x, norm.masked_fill(norm == 0.0, 1.0)).to(x.dtype)


class Dropout(nn.Module):
    """`dropout` as a module. `rate` is an ordinary attribute and may change between steps."""

    def __init__(
        self, rate: float, rescaling: Rescaling = "inverted", method: Method = "unit"
    ) -> None:
        super().__init__()
        self.rate = rate
        self.rescaling: Rescaling = rescaling
        self.method: Method = method

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.rate, self.rescaling, method=self.method, training=self.training)

    def extra_repr(self) -> str:
        return f"rate={self.rate}, method={self.method}, rescaling={self.rescaling}"


class DropConnect(nn.Linear):
    """A linear layer whose weights are dropped in training (Wan et al. 2013): `y = (m * W / (1 - rate)) x + b`.

    `[..., inputs]` -> `[..., units]`. The mask m, 1 with probability `1 - rate`, is one for the whole batch; the
    paper draws one for each sample, which takes a matrix of weights each. Evaluation has the mean weights, W.

    Args:
        inputs: width of the input.
        units: width of the output.
        rate: share of weights dropped, from 0 to below 1; it may change between steps.
        bias: learn an additive bias, which is never dropped.
    """

    def __init__(self, inputs: int, units: int, rate: float, *, bias: bool = True) -> None:
        super().__init__(inputs, units, bias=bias)
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, dropout(self.weight, self.rate, training=self.training), self.bias)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rate={self.rate}"


class StochasticDepth(nn.Module):
    """`stochastic_depth` as a module, at the end of a branch; `rate` may change between steps."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        return stochastic_depth(x, self.rate, training=self.training)

    def extra_repr(self) -> str:
        return f"rate={self.rate}"
