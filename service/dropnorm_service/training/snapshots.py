"""A training's state to a snapshot and back: everything that decides what numbers come next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from dropnorm.results import AutoOutcome, EpochMetrics
from dropnorm_service.training.checkpoint import Snapshot, damaged
from dropnorm_service.training.plateau import Plateau
from dropnorm_service.training.selection import Selection
from dropnorm_service.training.state import TrainingState
from dropnorm_service.training.stopwatch import Stopwatch


def capture(state: TrainingState) -> Snapshot:
    """A training, and torch's global random generators, as they are; its tensors are the training's own."""
    tensors = {**_fixed(state), "losses": state.losses, **state.random()}
    scalars: dict[str, dict[str, Any]] = {}
    for number, kept in state.optimizer.state_dict()["state"].items():
        for name, value in kept.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{number}/{name}"] = value
            else:
                scalars.setdefault(str(number), {})[name] = value
    return Snapshot(
        tensors,
        {
            "epoch": state.epoch,
            "step": state.step,
            "steps_before": state.steps_before,
            "history": [metrics.model_dump() for metrics in state.history],
            "selection": asdict(state.selection),
            "plateau": asdict(state.plateau),
            "averaged": state.average and state.average.count,
            "auto": state.auto and state.auto.model_dump(),
            "scaler": state.scaler.state_dict(),
            "optimizer": scalars,
            "epoch_seconds": state.epoch_watch.seconds,
            "seconds": state.watch.seconds,
        },
    )


def restore(state: TrainingState, snapshot: Snapshot) -> None:
    """Bring a fresh state, and torch's global random generators, to where a snapshot was taken.

    A training that comes to another kind of device goes on from there as well, but with other random
    numbers.

    Raises:
        Unusable: it is of another network or lacks something; then nothing has changed.
    """
    tensors, facts = snapshot.tensors, snapshot.facts
    _check_tensors(state, tensors)
    parameters = [each for group in state.optimizer.param_groups for each in group["params"]]
    try:
        moments = _moments(parameters, _under("optimizer/", tensors), facts["optimizer"])
        found = {
            "epoch": int(facts["epoch"]),
            "step": int(facts["step"]),
            "steps_before": int(facts["steps_before"]),
            "history": [EpochMetrics.model_validate(metrics) for metrics in facts["history"]],
            "selection": Selection(**facts["selection"]),
            "plateau": Plateau(**facts["plateau"]),
            "auto": facts["auto"] and AutoOutcome.model_validate(facts["auto"]),
            "epoch_watch": Stopwatch(float(facts["epoch_seconds"])),
            "losses": tensors["losses"].to(state.losses.device),
        }
        averaged, scaler, seconds = facts["averaged"], facts["scaler"], float(facts["seconds"])
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise damaged(f"it lacks something, or has what it should not: {error}") from error
    state.model.load_state_dict(_under("model/", tensors))
    for name, tensor in _under("best/", tensors).items():
        state.best[name].copy_(tensor)
    if state.average is not None:
        state.average.network.load_state_dict(_under("average/", tensors))
        state.average.count = averaged
    groups = state.optimizer.state_dict()["param_groups"]
    state.optimizer.load_state_dict({"state": moments, "param_groups": groups})
    if scaler:
        state.scaler.load_state_dict(dict(scaler))
    for name, value in found.items():
        setattr(state, name, value)
    state.watch.add(seconds)
    torch.set_rng_state(tensors["random/cpu"])
    if state.losses.is_cuda and "random/cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random/cuda"], state.losses.device)


def _fixed(state: TrainingState) -> dict[str, Tensor]:
    """The tensors that a training has from its start to its end."""
    tensors = {f"model/{name}": tensor for name, tensor in state.model.state_dict().items()}
    tensors |= {f"best/{name}": tensor for name, tensor in state.best.items()}
    if state.average is not None:
        averages = state.average.network.state_dict()
        tensors |= {f"average/{name}": tensor for name, tensor in averages.items()}
    return tensors


def _check_tensors(state: TrainingState, tensors: Mapping[str, Tensor]) -> None:
    """Refuse what is of another network, before any of it is taken over."""
    wanted = {**_fixed(state), "random/cpu": torch.get_rng_state()}
    others = {name for name in tensors if name.startswith(("optimizer/", "random/cuda"))}
    if different := (set(tensors) - others - {"losses"}) ^ set(wanted):
        raise damaged(f"{min(different)} is missing, or should not be there")
    for name, tensor in wanted.items():
        if tensors[name].shape != tensor.shape or tensors[name].dtype != tensor.dtype:
            raise damaged(f"{name} has another shape or type")


def _moments(
    parameters: list[Tensor],
    tensors: Mapping[str, Tensor],
    scalars: Mapping[str, Mapping[str, Any]],
) -> dict[int, dict[str, Any]]:
    """What an optimizer remembers of each parameter, by the parameter's number."""
    kept: dict[int, dict[str, Any]] = {
        int(number): dict(values) for number, values in scalars.items()
    }
    for path, tensor in tensors.items():
        number, _, name = path.partition("/")
        parameter = parameters[int(number)]
        if tensor.shape == parameter.shape and tensor.is_floating_point():
            # In the parameter's own memory layout, which fused kernels rely on.
            tensor = torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)
        kept.setdefault(int(number), {})[name] = tensor
    return kept


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
