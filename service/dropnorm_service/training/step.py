"""One optimizer step, in the arithmetic that the spec asks for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dropnorm.spec import Compute, GradientClipping, InvalidSpecError, Problem
from dropnorm_service.training.layers import Side
from dropnorm_service.training.state import TrainingState

# Share of an auxiliary head's loss in what is minimised (Szegedy et al. 2014, section 5).
_SIDE_WEIGHT = 0.3

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


class Stepper:
    """Forward, backward and update of one batch. Nothing in it waits for the device.

    Args:
        state: model, optimizer and scaler.
        loss: from outputs and targets, as `Objective.loss`.
        compute: precision, and whether the forward pass is compiled.
        clipping: limit of the gradient's norm.
    """

    def __init__(
        self,
        state: TrainingState,
        loss: Callable[[Tensor, Tensor], Tensor],
        compute: Compute,
        clipping: GradientClipping | None,
    ) -> None:
        # By static shapes, of which there are few: otherwise the code that a batch meets, and with it the last
        # digits of its numbers, depends on which sizes this process saw before.
        self._forward = (
            torch.compile(state.model, dynamic=False) if compute.compile else state.model
        )
        self._compiles = compute.compile
        self._parameters = list(state.model.parameters())
        self._sides = [module for module in state.model.modules() if isinstance(module, Side)]
        self._optimizer, self._scaler = state.optimizer, state.scaler
        self._loss = loss
        self._autocast = autocast(compute, state.losses.device)
        self._clipping = clipping

    def __call__(self, x: Tensor, y: Tensor, learning_rate: float) -> Tensor:
        """Train on one batch; its loss before the update, on the device.

        Raises:
            InvalidSpecError: the model cannot be compiled here.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        with self._autocast:
            loss = self._loss(self._outputs(x), y)
            for side in self._sides:
                assert side.guess is not None  # the model is in training
                loss = loss + _SIDE_WEIGHT * self._loss(side.guess, y)
        self._scaler.scale(loss.sum()).backward()
        if self._clipping is not None:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self._parameters, self._clipping.max_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        for parameter in self._parameters:
            parameter.grad = None
        return loss.detach()

    def _outputs(self, x: Tensor) -> Tensor:
        if not self._compiles:
            outputs: Tensor = self._forward(x)
            return outputs
        from torch._dynamo.exc import TorchDynamoException

        try:
            outputs = self._forward(x)
        except TorchDynamoException as error:
            why = str(error).splitlines()[0]
            message = f"the model cannot be compiled here ({why}); set compile to false"
            raise InvalidSpecError([Problem("compute.compile", message)]) from error
        return outputs


def autocast(compute: Compute, device: torch.device) -> torch.autocast:
    """The context in which the forward pass of a spec runs; the same for training and evaluation."""
    dtype = _DTYPES[compute.precision]
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
