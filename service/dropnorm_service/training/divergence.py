"""Which layer it was whose numbers first ceased to be finite, found by training the last steps again.

When a loss is seen to be infinite the network has long been ruined, and its first layer is as bad as its last. A
training is the same numbers every time, so it is brought back to the step before, from its last checkpoint with
sound weights or its start, and listened to from there on. Healthy trainings pay nothing for it.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dropnorm_service.training.design import Design
from dropnorm_service.training.errors import Diverged, Origin, TrainingError
from dropnorm_service.training.reporting import Interrupted, Order, Orders
from dropnorm_service.training.state import TrainingState

_PATIENCE = 120.0
"""Seconds that a training may take to come back to where it diverged."""


class Training(Protocol):
    """A training that can be run again."""

    state: TrainingState

    def uncompile(self) -> None:
        """Run the network module by module from now on."""

    def run(self) -> object:
        """Train, asking for orders after each step."""


class _Halt(Exception):
    """Enough has been seen."""


class _TooLate(Exception):
    """The weights are not finite to begin with.

    Attributes:
        step: optimizer steps done there.
    """

    def __init__(self, step: int) -> None:
        super().__init__(f"weights that are not finite behind step {step}")
        self.step = step


def origin_of(
    starts: Sequence[Callable[[Orders], Training]],
    diverged: Diverged,
    paper: Design,
    orders: Orders,
) -> Origin | None:
    """Where a training began to diverge; None when that cannot be found out.

    Args:
        starts: each makes the training anew, as it was at its last checkpoint, at one before, at its start; it may
            write none. The next is asked where the weights of the one before were ruined already.
        diverged: how it ended.
        paper: its network.
        orders: of the training; one that is to stop is not looked at any longer.
    """
    # The loss of a step shows what the step before made of the weights; a validation that of the last one.
    last = diverged.step + (diverged.metric == "validation_loss")
    deadline = time.perf_counter() + _PATIENCE

    def heed() -> None:
        if orders() in (Order.PAUSE, Order.CANCEL) or time.perf_counter() > deadline:
            raise _Halt

    for start in starts:
        gc.collect()  # the training before held much memory
        try:
            return _origin_from(start, last, paper, heed)
        except _TooLate as ruined:
            last = ruined.step + 1
    return None


def _origin_from(
    start: Callable[[Orders], Training], last: int, paper: Design, heed: Callable[[], None]
) -> Origin | None:
    """Where a training whose loss shows it at step `last` began to diverge.

    Raises:
        _TooLate: it had where it starts.
    """
    witness: _Witness | None = None
    training: Training | None = None

    def watch() -> Order:
        nonlocal witness
        heed()
        if training is None:  # it is still being made
            return Order.GO_ON
        if witness is None and training.state.steps_done >= last - 2:
            training.uncompile()
            witness = _Witness(training.state, paper)
        elif witness is not None:
            witness.look_at_weights()
        if witness is not None and training.state.steps_done >= last:
            witness.look_at_loss()
            raise _Halt
        if witness is not None and witness.origin is not None:
            raise _Halt
        return Order.GO_ON

    try:
        training = start(watch)
        if _bad_weights(training.state) is not None:
            raise _TooLate(training.state.steps_done)
        watch()
        training.run()
    except Diverged:
        if witness is not None:
            witness.blame_output()
    except (_Halt, Interrupted, TrainingError, RuntimeError, MemoryError):
        pass  # whatever happens now, it is the divergence that is to be told
    finally:
        if witness is not None:
            witness.leave()
    return None if witness is None else witness.origin


class _Witness:
    """Listens to the layers of a training's networks for the first number that is not finite.

    Attributes:
        origin: where it was; None: there was none yet, or it was there before.
    """

    def __init__(self, state: TrainingState, paper: Design) -> None:
        self.origin: Origin | None = None
        self._state = state
        self._names = sorted((layer.element.name for layer in paper.walk()), key=len, reverse=True)
        self._heard_last: str | None = None
        self._behind: str | None = None
        """The layer that got its gradient last: it comes behind the one that gets the next."""
        self._handles = [
            network.get_submodule(name).register_forward_hook(partial(self._heard, name))
            for network in {state.model, state.judged}
            for name in self._names
        ]
        if (
            not state.scaler.is_enabled()
        ):  # which takes gradients that overflow as a matter of course
            self._handles += list(self._parameter_hooks())
        if _bad_weights(state) is not None:
            raise _Halt

    def look_at_weights(self) -> None:
        """Between two steps: what the update made of the weights."""
        name = None if self.origin else _bad_weights(self._state)
        if name is not None:
            self.origin = Origin(self._layer(name), "weights", self._state.steps_done)

    def look_at_loss(self) -> None:
        """After a step: what the loss made of an output that is still finite."""
        if not _finite(self._state.losses[: self._state.step]):
            self.blame_output()

    def blame_output(self) -> None:
        """The loss is not finite: unless a layer was found before, the last one's output is too large for it."""
        if self.origin is None and self._heard_last is not None:
            self.origin = Origin(self._heard_last, "output", self._state.steps_done)

    def leave(self) -> None:
        """Listen no longer."""
        for handle in self._handles:
            handle.remove()

    def _parameter_hooks(self) -> Iterator[RemovableHandle]:
        for name, parameter in self._state.model.named_parameters():
            if parameter.requires_grad:
                yield parameter.register_hook(partial(self._weights_moved, self._layer(name)))

    def _heard(self, layer: str, module: nn.Module, arguments: object, output: Any) -> None:
        for each in output if isinstance(output, tuple | list) else (output,):
            if not isinstance(each, Tensor) or not each.is_floating_point():
                continue
            self._heard_last = layer
            self._note(layer, "output", each.detach())
            if each.requires_grad and not self._state.scaler.is_enabled():
                self._behind = None
                each.register_hook(partial(self._gradient_arrived, layer))

    def _gradient_arrived(self, layer: str, gradient: Tensor) -> None:
        # What arrives at a layer's output was made by the layer behind it; at the last one's, by the loss.
        self._note(self._behind or layer, "gradient", gradient)
        self._behind = layer

    def _weights_moved(self, layer: str, gradient: Tensor) -> None:
        self._note(layer, "gradient", gradient)

    def _note(self, layer: str, what: Any, values: Tensor) -> None:
        if self.origin is None and not _finite(values):
            step = self._state.steps_done + self._state.model.training
            self.origin = Origin(layer, what, step)

    def _layer(self, parameter: str) -> str:
        """The layer of the plan that a parameter belongs to."""
        for name in self._names:
            if parameter.startswith(f"{name}."):
                return name
        return parameter.rpartition(".")[0]


def _bad_weights(state: TrainingState) -> str | None:
    """The first parameter that is not finite."""
    named = state.model.named_parameters()
    return next((name for name, weights in named if not _finite(weights)), None)


def _finite(values: Tensor) -> bool:
    return bool(torch.isfinite(values).all())
