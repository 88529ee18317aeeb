"""What goes on in each layer in a training step: how large its outputs are, whether its units live, and how much
gradient arrives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from math import nan
from typing import Any

import torch
from torch import Tensor, nn

from dropnorm.results import LayerReport
from dropnorm.spec import Problem, TrainingSpec
from dropnorm_service.training.batching import Batching, derived_seed
from dropnorm_service.training.data import Split
from dropnorm_service.training.design import Design
from dropnorm_service.training.evaluation.modes import buffers_kept
from dropnorm_service.training.layers import ACTIVATIONS
from dropnorm_service.training.model import model_of
from dropnorm_service.training.objectives import Objective
from dropnorm_service.training.recalibration import parts_of
from dropnorm_service.training.state import TrainingState
from dropnorm_service.training.step import autocast, loss_of, sides_of

MOST = 1000
"""Layers that are reported; of a deeper network the first ones."""

MOST_IN_ALL = 50_000
"""Reports of a layer in a whole training, all of which every checkpoint and the evaluation hold, so that every reply
with the job does: they take 5 MB in one, and ten times as much in the service that makes it."""

_ACTIVATIONS = tuple({type(each.make()) for each in ACTIVATIONS.values()})
_IMAGE = 4
"""Dimensions of a batch of images, whose channels come second; of all else the features come last."""


def report_step(
    state: TrainingState,
    objective: Objective,
    spec: TrainingSpec,
    train: Split,
    batching: Batching,
) -> tuple[LayerReport, ...]:
    """The layers over as many training samples as are computed at once, the same ones and masks every time.

    Args:
        state: its model is in training mode.
        objective: gives the loss.
        spec: its seed is that of samples and masks.
        train: the training split.
        batching: how it is cut.
    """
    seed, model = derived_seed(spec.seed, "layers"), state.model
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    batch = next(parts_of(order, spec, batching)).to(train.x.device)
    x, y = train.x.index_select(0, batch), train.y.index_select(0, batch)

    def loss() -> Tensor:
        with autocast(spec.compute, x.device):
            return loss_of(objective, model, sides_of(model), x, y)

    with state.other_random_numbers():
        torch.manual_seed(seed)
        return layer_report(model, loss, scale=state.scaler.get_scale())


def layer_report(
    network: nn.Module, loss_from: Callable[[], Tensor], *, scale: float = 1.0
) -> tuple[LayerReport, ...]:
    """Each layer with weights of its own and each activation, over one forward and backward pass.

    Nothing stays of it: no weight moves, no optimizer sees a gradient, and running statistics are put back.

    Args:
        network: in training mode.
        loss_from: makes the forward pass and gives the loss.
        scale: factor on the loss in the backward pass, divided out of what comes of it.
    """
    layers = dict(_layers(network))
    with buffers_kept(network), _listening(layers) as outputs:
        loss = loss_from()
        norms = _gradient_norms({name: layers[name] for name in outputs}, loss.sum() * scale)
    rows = {
        name: torch.stack([*of_output, norms.get(name, of_output[0].new_tensor(nan)) / scale])
        for name, of_output in outputs.items()
    }
    values = torch.stack(list(rows.values())).tolist() if rows else []
    return tuple(
        LayerReport(
            layer=name,
            mean=mean,
            variance=variance,
            dead_share=dead_share if isinstance(layers[name], _ACTIVATIONS) else None,
            gradient_norm=norm if name in norms else None,
        )
        for name, (mean, variance, dead_share, norm) in zip(rows, values, strict=True)
    )


def too_many_reports(training: TrainingSpec, paper: Design) -> Iterator[Problem]:
    """Whether a training would make more reports than can be kept."""
    every, epochs = training.evaluation.layer_report_epochs, training.optimization.epochs
    if every is None or (epochs // every) * MOST <= MOST_IN_ALL:
        return
    with torch.device("meta"):
        layers = len(_layers(model_of(paper, training.initialization)))
    reports, allowed = epochs // every, MOST_IN_ALL // layers
    if reports > allowed:
        yield Problem(
            "evaluation.layer_report_epochs",
            f"{layers} layers would be reported {reports:,} times, and a training keeps at most {MOST_IN_ALL:,} "
            f"reports of a layer; give at least {epochs // (allowed + 1) + 1}",
        )


def _layers(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """The modules that are reported, with their names, in order."""
    found = [
        (name, module)
        for name, module in network.named_modules()
        if isinstance(module, _ACTIVATIONS)
        or next(module.parameters(recurse=False), None) is not None
    ]
    return found[:MOST]


@contextmanager
def _listening(layers: Mapping[str, nn.Module]) -> Iterator[dict[str, list[Tensor]]]:
    """Inside the block the outputs of layers are measured: mean, variance and share of dead units, float64.

    They are in the order in which they run first. A layer that runs again is measured at its last run; one that
    never runs is left out.
    """
    outputs: dict[str, list[Tensor]] = {}

    def measure(name: str, module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor):
            outputs[name] = _measured(output.detach())

    hooks = [
        module.register_forward_hook(partial(measure, name)) for name, module in layers.items()
    ]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def _measured(output: Tensor) -> list[Tensor]:
    """Mean and variance over all values, and the share of units that are zero for every sample and place."""
    variance, mean = torch.var_mean(output.float(), correction=0)
    features = 1 if output.ndim == _IMAGE else -1
    dead = output.eq(0.0).transpose(0, features).flatten(1).all(dim=1)
    return [mean.double(), variance.double(), dead.double().mean()]


def _gradient_norms(layers: Mapping[str, nn.Module], loss: Tensor) -> dict[str, Tensor]:
    """The 2-norm of the gradient of all weights of a layer together, float64, of layers with any that learn."""
    owned = {
        name: [each for each in module.parameters(recurse=False) if each.requires_grad]
        for name, module in layers.items()
    }
    parameters = [parameter for group in owned.values() for parameter in group]
    gradients = iter(torch.autograd.grad(loss, parameters, allow_unused=True))
    norms = {}
    for name, group in owned.items():
        squares = [_squares(next(gradients), parameter) for parameter in group]
        if squares:
            norms[name] = torch.stack(squares).sum().sqrt()
    return norms


def _squares(gradient: Tensor | None, parameter: Tensor) -> Tensor:
    return (torch.zeros_like(parameter) if gradient is None else gradient).double().square().sum()
