"""Everything a training must remember to go on as if it had never stopped."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from dropnorm.results import AutoOutcome, EpochMetrics
from dropnorm.spec import Compute, TrainingSpec
from dropnorm_service.training.averaging import WeightAverage, average_of
from dropnorm_service.training.checkpoint import Snapshot
from dropnorm_service.training.data import SplitData
from dropnorm_service.training.design import Design
from dropnorm_service.training.model import model_of
from dropnorm_service.training.network import Network
from dropnorm_service.training.optimizers import build_optimizer
from dropnorm_service.training.plateau import Plateau
from dropnorm_service.training.selection import Selection
from dropnorm_service.training.stopwatch import Stopwatch


@dataclass
class TrainingState:
    """Where a training stands.

    Attributes:
        model: the network, in motion.
        optimizer: what moves it.
        scaler: scales the loss under float16; disabled otherwise.
        losses: the loss of each step of the current epoch, float32 `[steps of the epoch]`, on the device.
        best: weights and buffers of the best epoch by name, on the device.
        epoch: the current epoch, from 1.
        step: its steps done.
        steps_before: optimizer steps of the epochs before it.
        history: the epochs done.
        selection: which of them is the best.
        plateau: what a schedule that waits for a plateau made of them.
        average: an average of the weights, which is what is judged and kept; None: there is none.
        auto: what automatic values came to; None: not known yet, or none were asked for.
        epoch_watch: wall time of the current epoch's steps.
        watch: wall time of all attempts.
    """

    model: Network
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    losses: Tensor
    best: dict[str, Tensor]
    epoch: int = 1
    step: int = 0
    steps_before: int = 0
    history: list[EpochMetrics] = field(default_factory=list)
    selection: Selection = field(default_factory=Selection)
    plateau: Plateau = field(default_factory=Plateau)
    average: WeightAverage | None = None
    auto: AutoOutcome | None = None
    epoch_watch: Stopwatch = field(default_factory=Stopwatch)
    watch: Stopwatch = field(default_factory=Stopwatch)
    _random: dict[str, Tensor] | None = None

    @property
    def steps_done(self) -> int:
        """Optimizer steps since the start of the training."""
        return self.steps_before + self.step

    def end_epoch(self) -> None:
        """The current epoch is done, and the next one is the current one."""
        self.steps_before += self.step
        self.epoch, self.step = self.epoch + 1, 0
        self.epoch_watch = Stopwatch()

    def expect(self, steps: int) -> None:
        """The current epoch has so many steps."""
        if len(self.losses) != steps:
            self.losses = self.losses.new_zeros(steps)

    def keep_weights(self) -> None:
        """The current weights are the best so far."""
        for name, tensor in self.judged.state_dict().items():
            self.best[name].copy_(tensor)

    @property
    def judged(self) -> Network:
        """The network that is validated, selected and tested: the average, or else that in training."""
        return self.model if self.average is None else self.average.network

    @contextmanager
    def other_random_numbers(self) -> Iterator[None]:
        """Inside the block torch's global generators serve something besides the training.

        A checkpoint, and who comes after the block, has them as they were before.
        """
        device = self.losses.device
        self._random = _random(device)
        try:
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                yield
        finally:
            self._random = None

    def random(self) -> dict[str, Tensor]:
        """The states of the generators that the training draws from, by the names they have in a checkpoint."""
        return self._random or _random(self.losses.device)


def fresh_state(spec: TrainingSpec, data: SplitData, paper: Design) -> TrainingState:
    """The start of a training: weights drawn from torch's global generator under the spec's seed.

    They are drawn on the CPU, so that they are the same on every device.
    """
    device = data.device
    watch = Stopwatch(data.seconds)
    watch.start()
    torch.manual_seed(spec.seed)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    model = model_of(paper, spec.initialization).to(device)
    if device.type == "cuda":
        # What tensor cores want of convolutions; their inputs follow the weights.
        for parameter in model.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return TrainingState(
        model=model,
        optimizer=_optimizer(spec, model, device),
        scaler=_loss_scaler(spec.compute, device),
        losses=torch.zeros(0, device=device),
        best={name: tensor.clone() for name, tensor in model.state_dict().items()},
        average=average_of(model, spec.optimization),
        watch=watch,
    )


def trial(state: TrainingState, spec: TrainingSpec) -> TrainingState:
    """A copy of the start of a training, to try something on."""
    model, device = copy.deepcopy(state.model), state.losses.device
    return TrainingState(
        model=model,
        optimizer=_optimizer(spec, model, device),
        scaler=_loss_scaler(spec.compute, device),
        losses=state.losses,
        best={},
    )


def capture(state: TrainingState) -> Snapshot:
    """A checkpoint of a training, and of torch's global random generators."""
    tensors = {f"model/{name}": tensor for name, tensor in state.model.state_dict().items()}
    tensors |= {f"best/{name}": tensor for name, tensor in state.best.items()}
    tensors |= {"losses": state.losses, **state.random()}
    if state.average is not None:
        averages = state.average.network.state_dict()
        tensors |= {f"average/{name}": tensor for name, tensor in averages.items()}
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
    """Bring a fresh state, and torch's global random generators, to where a checkpoint was taken.

    A training that comes to another kind of device goes on from there as well, but with other random
    numbers.

    Raises:
        RuntimeError, KeyError: the checkpoint is of another network or optimizer.
    """
    facts, tensors = snapshot.facts, snapshot.tensors
    state.model.load_state_dict(_under("model/", tensors))
    for name, tensor in _under("best/", tensors).items():
        state.best[name].copy_(tensor)
    if state.average is not None:
        state.average.network.load_state_dict(_under("average/", tensors))
        state.average.count = facts["averaged"]
    state.losses = tensors["losses"].to(state.losses.device)
    _restore_optimizer(state.optimizer, _under("optimizer/", tensors), facts["optimizer"])
    if facts["scaler"]:
        state.scaler.load_state_dict(dict(facts["scaler"]))
    state.epoch, state.step = facts["epoch"], facts["step"]
    state.steps_before = facts["steps_before"]
    state.history = [EpochMetrics.model_validate(metrics) for metrics in facts["history"]]
    state.selection = Selection(**facts["selection"])
    state.plateau = Plateau(**facts["plateau"])
    state.auto = facts["auto"] and AutoOutcome.model_validate(facts["auto"])
    state.epoch_watch = Stopwatch(facts["epoch_seconds"])
    state.watch.add(facts["seconds"])
    torch.set_rng_state(tensors["random/cpu"])
    if state.losses.is_cuda and "random/cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random/cuda"], state.losses.device)


def _optimizer(spec: TrainingSpec, model: Network, device: torch.device) -> torch.optim.Optimizer:
    return build_optimizer(
        spec.optimization,
        model,
        device,
        lr_factors=model.lr_factors,
        output_layers=model.output_layers,
    )


def _restore_optimizer(
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, Tensor],
    scalars: Mapping[str, Mapping[str, Any]],
) -> None:
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
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
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": kept, "param_groups": groups})


def _random(device: torch.device) -> dict[str, Tensor]:
    states = {"random/cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["random/cuda"] = torch.cuda.get_rng_state(device)
    return states


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def _loss_scaler(compute: Compute, device: torch.device) -> torch.amp.GradScaler:
    """Loss scaling (Micikevicius et al. 2018), enabled under float16."""
    return torch.amp.GradScaler(device.type, enabled=compute.precision == "float16")
