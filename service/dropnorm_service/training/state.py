"""Everything a training must remember to go on as if it had never stopped."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dropnorm.results import AutoOutcome, EpochMetrics
from dropnorm.spec import Compute, TrainingSpec
from dropnorm_service.training.averaging import WeightAverage, average_of
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


def fresh_state(
    spec: TrainingSpec,
    data: SplitData,
    paper: Design,
    between_layers: Callable[[], None] = lambda: None,
) -> TrainingState:
    """The start of a training: weights drawn from torch's global generator under the spec's seed.

    They are drawn on the CPU, so that they are the same on every device.

    Args:
        spec: what to train.
        data: its data.
        paper: the network's layers.
        between_layers: called as layers are made and drawn; what it raises ends the building.
    """
    device = data.device
    watch = Stopwatch(data.seconds)
    watch.start()
    torch.manual_seed(spec.seed)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    model = model_of(paper, spec.initialization, between_layers).to(device)
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


def _optimizer(spec: TrainingSpec, model: Network, device: torch.device) -> torch.optim.Optimizer:
    return build_optimizer(
        spec.optimization,
        model,
        device,
        lr_factors=model.lr_factors,
        output_layers=model.output_layers,
    )


def _random(device: torch.device) -> dict[str, Tensor]:
    states = {"random/cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["random/cuda"] = torch.cuda.get_rng_state(device)
    return states


def _loss_scaler(compute: Compute, device: torch.device) -> torch.amp.GradScaler:
    """Loss scaling (Micikevicius et al. 2018), enabled under float16."""
    return torch.amp.GradScaler(device.type, enabled=compute.precision == "float16")
