"""Batch norm by ghost batches, and by averages that never wait for the device."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm


class GhostBatchNorm(_BatchNorm):
    """Batch norm that cuts a training batch into ghost batches, each normalised by itself (Hoffer et al. 2017).

    `[batch, channels, ...]`, which it keeps. A batch of N samples is cut into `max(N // size, 1)` ghost
    batches of `size` samples, and the last takes what is left over as well: none is smaller than `size`
    unless the batch itself is. Which samples are together does not matter, as batches are shuffled; of G
    equal ones it is each G-th, so that they need not be copied.

    Running statistics move once for each ghost batch in its turn, by the momentum, or without one to the
    mean over all so far, where torch's own cumulative average waits for the device at each step. So for a
    single ghost batch it is torch's batch norm. Evaluation knows no ghost batches.

    Args:
        channels: features of a vector or channels of an image.
        size: samples of a ghost batch; None: the batch is one.
        momentum: weight of the newest ghost batch in the running statistics; None: all weigh alike.
        eps: added to the variance.
        affine: learn gamma and beta.
        track_running_stats: keep running statistics for evaluation.
    """

    def __init__(
        self,
        channels: int,
        size: int | None = None,
        *,
        momentum: float | None = 0.1,
        eps: float = 1e-5,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        super().__init__(channels, eps, momentum, affine, track_running_stats)
        self.size = size

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions will do."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        size = self.size or len(x)
        ghosts = max(len(x) // size, 1)
        if ghosts == 1 and self.momentum is not None:
            return super().forward(x)  # the same, and a little faster
        if ghosts == 1 or ghosts * size == len(x):
            y, mean, variance = self._normalize(x, ghosts)
        else:
            cut = (ghosts - 1) * size
            equal, last = self._normalize(x[:cut], ghosts - 1), self._normalize(x[cut:], 1)
            y, mean, variance = map(torch.cat, zip(equal, last, strict=True))
        self._remember(mean, variance)
        return y

    def _normalize(self, x: Tensor, ghosts: int) -> tuple[Tensor, Tensor, Tensor]:
        """`x` by each of its equal ghost batches, and their means and unbiased variances `[ghosts, channels]`."""
        channels = ghosts * self.num_features
        # Each ghost batch has channels of its own; with a momentum of 1 running statistics are the batch's.
        wide = torch.promote_types(x.dtype, torch.float32)
        mean, variance = x.new_zeros(2, channels, dtype=wide).unbind()
        weight: Tensor | None = self.weight
        bias: Tensor | None = self.bias
        if weight is not None and bias is not None and ghosts > 1:
            weight, bias = weight.repeat(ghosts), bias.repeat(ghosts)
        tall = x.reshape(len(x) // ghosts, channels, *x.shape[2:])
        y = F.batch_norm(tall, mean, variance, weight, bias, True, 1.0, self.eps)
        shape = ghosts, self.num_features
        return y.reshape(x.shape), mean.view(shape), variance.view(shape)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        if self.num_batches_tracked is None:
            return
        assert self.running_mean is not None  # all three or none
        assert self.running_var is not None
        ghosts = len(mean)
        self.num_batches_tracked.add_(ghosts)
        for running, newest in ((self.running_mean, mean), (self.running_var, variance)):
            if self.momentum is None:
                share = (ghosts / self.num_batches_tracked).to(running.dtype)
                running.lerp_(newest.mean(dim=0), share)
                continue
            ages = torch.arange(ghosts - 1, -1, -1, device=mean.device)
            weights = self.momentum * (1.0 - self.momentum) ** ages
            running.mul_((1.0 - self.momentum) ** ghosts).add_(weights.to(newest.dtype) @ newest)

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, ghost batches of {self.size}, momentum={self.momentum}, eps={self.eps}, "
            f"affine={self.affine}, track_running_stats={self.track_running_stats}"
        )
