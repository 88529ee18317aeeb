"""One optimizer step, in the arithmetic that the spec asks for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dropnorm.spec import Compute, InvalidSpecError, Problem, TrainingSpec
from dropnorm_service.training.augmentation import Augment
from dropnorm_service.training.constraints import L1Penalty, MaxNorm
from dropnorm_service.training.layers import Side
from dropnorm_service.training.objectives import Forward, Objective
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
        spec: precision, whether the forward pass is compiled, how a batch is computed, limits of gradient and
            weights.
        augment: changes each batch before the forward pass; None: nothing does.
    """

    def __init__(
        self,
        state: TrainingState,
        objective: Objective,
        spec: TrainingSpec,
        augment: Augment | None = None,
    ) -> None:
        compute = spec.compute
        # By static shapes, of which there are few: otherwise the code that a batch meets, and with it the last
        # digits of its numbers, depends on which sizes this process saw before.
        self._model = state.model
        self._forward = (
            torch.compile(state.model, dynamic=False) if compute.compile else state.model
        )
        self._compiles = compute.compile
        self._parameters = list(state.model.parameters())
        self._sides = sides_of(state.model)
        self._optimizer, self._scaler = state.optimizer, state.scaler
        self._scales = state.scaler.is_enabled()
        self._objective = objective
        self._compute, self._device = compute, state.losses.device
        self._clipping = spec.optimization.gradient_clipping
        self._learners = [
            list(state.model.get_submodule(name).parameters()) for name in state.model.opponents
        ] or [self._parameters]
        weights, regularization = state.model, spec.regularization
        self._l1 = L1Penalty(weights, regularization.l1) if regularization.l1 else None
        self._max_norm = (
            MaxNorm(weights, regularization.max_norm) if regularization.max_norm else None
        )
        self._average, self._augment = state.average, augment
        self._micro = spec.optimization.micro_batch_size or math.inf
        self._learning_rate = math.nan

    def __call__(self, x: Tensor, y: Tensor, learning_rate: float) -> Tensor:
        """Train on one batch; its loss before the update, on the device.

        Raises:
            InvalidSpecError: the model cannot be compiled here.
        """
        if learning_rate != self._learning_rate:
            self._learning_rate = learning_rate
            set_learning_rate(self._optimizer, learning_rate)
        if self._augment is not None:
            x, y = self._augment(x, y)
        loss = self._backward(x, y) if len(x) <= self._micro else self._accumulate(x, y)
        self._move()
        for parameter in self._parameters:
            parameter.grad = None
        return loss

    def uncompile(self) -> None:
        """Run the network module by module from now on."""
        self._forward, self._compiles = self._model, False

    def _accumulate(self, x: Tensor, y: Tensor) -> Tensor:
        """The gradient of a batch's mean loss, from that of its parts, each by what its own loss is a mean over."""
        parts = math.ceil(len(x) / self._micro)
        weight = self._objective.weight
        whole = weight(x, y)
        losses = [
            self._backward(some, targets, weight(some, targets) / whole)
            for some, targets in zip(x.tensor_split(parts), y.tensor_split(parts), strict=True)
        ]
        return torch.stack(losses).sum(dim=0)

    def _backward(self, x: Tensor, y: Tensor, share: Tensor | float | None = None) -> Tensor:
        """Forward and backward pass; the loss as a share of the batch's, or all of it."""
        loss = self._losses(x, y)
        if share is not None:
            loss = loss * share
        total = loss if loss.ndim == 0 else loss.sum()
        (self._scaler.scale(total) if self._scales else total).backward()
        return loss.detach()

    def _losses(self, x: Tensor, y: Tensor) -> Tensor:
        # For a small network each context and each call between two kernels shows, so what is off is left out.
        if self._compute.precision == "float32":
            return self._guessed(x, y)
        with autocast(self._compute, self._device):
            return self._guessed(x, y)

    def _guessed(self, x: Tensor, y: Tensor) -> Tensor:
        return loss_of(self._objective, self._outputs, self._sides, x, y)

    def _move(self) -> None:
        if self._scales:
            self._scaler.unscale_(self._optimizer)
        if self._l1 is not None:
            self._l1.add_gradient()
        self._clip()
        if self._scales:
            self._scaler.step(self._optimizer)
            self._scaler.update()
        else:
            self._optimizer.step()
        if self._max_norm is not None:
            self._max_norm.project()
        if self._average is not None:
            self._average.after_step()

    def _clip(self) -> None:
        if self._clipping is None:
            return
        if self._clipping.max_value is not None:
            nn.utils.clip_grad_value_(self._parameters, self._clipping.max_value)
        if self._clipping.max_norm is not None:
            for parameters in self._learners:
                nn.utils.clip_grad_norm_(parameters, self._clipping.max_norm)

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


def sides_of(network: nn.Module) -> list[Side]:
    """The places where auxiliary heads guess."""
    return [module for module in network.modules() if isinstance(module, Side)]


def loss_of(
    objective: Objective, forward: Forward, sides: Sequence[Side], x: Tensor, y: Tensor
) -> Tensor:
    """The loss of a batch, with those of the auxiliary heads that the network in training has."""
    loss = objective.training_loss(forward, x, y)
    for side in sides:
        loss = loss + _SIDE_WEIGHT * objective.training_loss(side.guessed, x, y)
    return loss


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
