"""What holds weights down besides the optimizer's decay: an L1 penalty, and a limit on what comes into a unit."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dropnorm_service.training.layers.recurrent import Recurrent


class L1Penalty:
    """Adds the gradient of `strength * sum |w|` over a network's weights, biases and norms left out.

    The gradient is `strength * sign(w)`, 0 where a weight is 0, as autograd has it of the penalty itself;
    one pass over the weights, and the loss stays comparable with that of an evaluation.
    """

    def __init__(self, network: nn.Module, strength: float) -> None:
        self._weights: list[Tensor] = [each for each in network.parameters() if each.ndim > 1]
        self._strength = strength

    @torch.no_grad()
    def add_gradient(self) -> None:
        """Add it to the gradients that there are, which must not be scaled any more."""
        moved = [weight for weight in self._weights if weight.grad is not None]
        if moved:
            signs = torch._foreach_sign(moved)
            gradients = [weight.grad for weight in moved if weight.grad is not None]
            torch._foreach_add_(gradients, signs, alpha=self._strength)


class MaxNorm:
    """Keeps the weights that come into each unit within a ball (Srivastava et al. 2014, section 5.1).

    A unit is an output of a linear layer, a gate of a recurrent unit, or an output channel of a convolution,
    transposed or not; its vector is of all weights that its value is made with, bias left out.
    """

    def __init__(self, network: nn.Module, limit: float) -> None:
        self._incoming = [
            incoming
            for module in network.modules()
            if (incoming := incoming_weights(module)) is not None
        ]
        self._limit = limit

    @torch.no_grad()
    def project(self) -> None:
        """Scale what is longer than the limit back to it; nothing else moves."""
        for weights, axes in self._incoming:
            lengths = torch.linalg.vector_norm(weights, dim=axes, keepdim=True)
            weights.mul_((self._limit / lengths).clamp_(max=1.0))


def incoming_weights(module: nn.Module) -> tuple[Tensor, tuple[int, ...]] | None:
    """A view of a layer's weights, and the axes over which those of one unit lie; None: it has no such units."""
    if isinstance(module, nn.Linear | nn.Conv2d | Recurrent):
        return module.weight.detach(), tuple(range(1, module.weight.ndim))
    if isinstance(module, nn.ConvTranspose2d):
        # [inputs, outputs of a group, height, width]: the inputs of one group after those of another.
        groups = module.weight.detach().unflatten(0, (module.groups, -1))
        return groups, (1, 3, 4)
    return None
