"""Batch norm by the batch over all processes of a training."""

from __future__ import annotations

import torch
from torch import Tensor, distributed

from dropnorm_service.training.layers.ghosts import GhostBatchNorm


class SynchronizedBatchNorm(GhostBatchNorm):
    """Batch norm by mean and variance over the batches of all processes of torch's default group.

    `[batch, channels, ...]`, which it keeps; batches may differ in size. Every process passes a batch through in
    training, at the same steps. Gradients of inputs are those of the sum of all processes' losses; those of gamma and
    beta are each process's share, for whoever averages the weights' to add up. torch's own has a kernel for GPUs alone.

    Where there is one process, or no group, it is a plain batch norm. So it is in evaluation, which never waits for
    other processes.

    Args:
        channels: features of a vector or channels of an image.
        momentum: weight of the newest batch in the running statistics; None: all weigh alike.
        eps: added to the variance.
        affine: learn gamma and beta.
        track_running_stats: keep running statistics for evaluation.
    """

    def __init__(
        self,
        channels: int,
        *,
        momentum: float | None = 0.1,
        eps: float = 1e-5,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        super().__init__(
            channels,
            momentum=momentum,
            eps=eps,
            affine=affine,
            track_running_stats=track_running_stats,
        )

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or _processes() == 1:
            return super().forward(x)
        places = (0, *range(2, x.ndim))
        per_channel = (1, -1, *(1 for _ in x.shape[2:]))
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        number = wide.new_tensor([wide.numel() // self.num_features])
        everywhere = _summed(torch.cat([wide.sum(places), number]))
        total, count = everywhere.split([self.num_features, 1])
        mean = total / count
        # In a second round, as a difference of large squares would lose the variance of values far from 0.
        deviations = wide - mean.view(per_channel)
        squares = _summed(deviations.square().sum(places))
        self._remember(mean.unsqueeze(0), (squares / (count - 1.0).clamp(min=1.0)).unsqueeze(0))
        scale = (squares / count + self.eps).rsqrt()
        y: Tensor = deviations * scale.view(per_channel)
        if self.affine:
            y = y * self.weight.view(per_channel) + self.bias.view(per_channel)
        return y.to(x.dtype)

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, momentum={self.momentum}, eps={self.eps}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}"
        )


def _processes() -> int:
    there = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if there else 1


def _summed(values: Tensor) -> Tensor:
    """The sum of all processes' values, through which gradients find their way."""
    from torch.distributed.nn.functional import all_reduce  # not every build of torch has it

    total: Tensor = all_reduce(values)
    return total
