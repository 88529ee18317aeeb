"""One optimizer step, in the arithmetic that the spec asks for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dropnorm.spec import Compute, GradientClipping, InvalidSpecError, Problem
from dropnorm_service.training.layers import Side
from dropnorm_service.training.objectives import Objective
from dropnorm_service.training.optimizers import set_learning_rate
from dropnorm_service.training.state import TrainingState

# Share of an auxiliary head's loss in what is minimised (Szegedy et al. 2014, section 5).
_SIDE_WEIGHT = 0.3

_NO_LIMIT = 2**31

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


class Stepper:
    """Forward, backward and update of one batch. Nothing in it waits for the device.

    Args:
        state: model, optimizer and scaler.
        objective: gives the loss of a batch.
        compute: precision, and whether the forward pass is compiled.
        clipping: limit of the gradient's norm.
    """

    def __init__(
        self,
        state: TrainingState,
        objective: Objective,
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
        self._scales = state.scaler.is_enabled()
        self._objective = objective
        self._compute, self._device = compute, state.losses.device
        self._clipping = clipping
        self._learning_rate = math.nan

    def __call__(self, x: Tensor, y: Tensor, learning_rate: float) -> Tensor:
        """Train on one batch; its loss before the update, on the device.

        Raises:
            InvalidSpecError: the model cannot be compiled here.
        """
        if learning_rate != self._learning_rate:
            self._learning_rate = learning_rate
            set_learning_rate(self._optimizer, learning_rate)
        loss = self._losses(x, y)
        self._update(loss if loss.ndim == 0 else loss.sum())
        for parameter in self._parameters:
            parameter.grad = None
        return loss.detach()

    def _losses(self, x: Tensor, y: Tensor) -> Tensor:
        # For a small network each context and each call between two kernels shows, so what is off is left out.
        if self._compute.precision == "float32":
            return self._guessed(x, y)
        with autocast(self._compute, self._device):
            return self._guessed(x, y)

    def _guessed(self, x: Tensor, y: Tensor) -> Tensor:
        loss = self._objective.training_loss(self._outputs, x, y)
        for side in self._sides:
            assert side.guess is not None  # the model is in training
            loss = loss + _SIDE_WEIGHT * self._objective.side_loss(side.guess, y)
        return loss

    def _update(self, loss: Tensor) -> None:
        if not self._scales:
            loss.backward()
            self._clip()
            self._optimizer.step()
            return
        self._scaler.scale(loss).backward()
        self._scaler.unscale_(self._optimizer)
        self._clip()
        self._scaler.step(self._optimizer)
        self._scaler.update()

    def _clip(self) -> None:
        if self._clipping is not None:
            nn.utils.clip_grad_norm_(self._parameters, self._clipping.max_norm)

    def _outputs(self, *inputs: Tensor) -> Tensor:
        if not self._compiles:
            outputs: Tensor = self._forward(*inputs)
            return outputs
        from torch._dynamo.exc import TorchDynamoException

        try:
            outputs = self._forward(*inputs)
        except TorchDynamoException as error:
            why = str(error).splitlines()[0]
            message = f"the model cannot be compiled here ({why}); set compile to false"
            raise InvalidSpecError([Problem("compute.compile", message)]) from error
        return outputs


@contextmanager
def compilation(compute: Compute) -> Iterator[None]:
    """Inside the block a compiled network keeps a version for every batch size and dropout rate that it meets.

    Beyond a limit of its own torch would go on uncompiled, with other numbers.
    """
    if not compute.compile:
        yield
        return
    from torch._dynamo import config

    with config.patch(recompile_limit=_NO_LIMIT, accumulated_recompile_limit=_NO_LIMIT):
        yield


def autocast(compute: Compute, device: torch.device) -> torch.autocast:
    """The context in which the forward pass of a spec runs; the same for training and evaluation."""
    dtype = _DTYPES[compute.precision]
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
