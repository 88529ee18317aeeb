"""Running statistics of batch norms computed anew at fixed weights ("precise batch norm", Wu & Johnson 2021).

While weights move, running statistics are an average over networks that are no more. Here they become the
mean and variance of all that reaches each norm over a whole split, every norm by its own batches as in
training. The variance is that of all values, between batches too, and not the mean of the batches'.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import ceil
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dropnorm.results import NormShift
from dropnorm.spec import TrainingSpec
from dropnorm_service.training.batching import Batching, derived_seed
from dropnorm_service.training.data import Split
from dropnorm_service.training.dropout_rates import stop_dropping
from dropnorm_service.training.layers import Context
from dropnorm_service.training.layers.norms import TokenBatchNorm

_Buffer = TypeVar("_Buffer", bound=Tensor)


def known(buffer: _Buffer | None) -> _Buffer:
    """A buffer that is there wherever running statistics are kept."""
    assert buffer is not None
    return buffer


class Population:
    """Mean and variance of all values that reach a norm: batches are merged as by Chan et al. 1983."""

    def __init__(self, norm: _BatchNorm) -> None:
        running = known(norm.running_mean)
        self.count = 0
        self.mean = torch.zeros_like(running, dtype=torch.float64)
        self.squares = torch.zeros_like(self.mean)

    def add(self, norm: nn.Module, arguments: tuple[Any, ...]) -> None:
        """Take note of a batch; a hook before the forward pass."""
        values = by_channel(norm, *arguments)
        variance, mean = (each.double() for each in torch.var_mean(values, dim=1, correction=0))
        count = values.shape[1]
        total, step = self.count + count, mean - self.mean
        self.mean += step * (count / total)
        self.squares += variance * count + step.square() * (self.count * count / total)
        self.count = total

    @property
    def variance(self) -> Tensor:
        """Unbiased, as torch keeps it."""
        return self.squares / max(self.count - 1, 1)


def recalibrate(
    network: nn.Module,
    spec: TrainingSpec,
    train: Split,
    batching: Batching,
    run: Callable[[Tensor, Tensor], None],
) -> None:
    """Compute running statistics anew, as the spec's evaluation asks for.

    Args:
        network: in training mode, but for batch norms that are frozen.
        spec: says whether dropout acts; its seed is that of the batches and of all random numbers.
        train: the training split.
        batching: how it is cut.
        run: makes a forward pass of the network over a batch.
    """
    if spec.evaluation.recalibrate_batch_norm == "dropout_off":
        stop_dropping(network)
    torch.manual_seed(derived_seed(spec.seed, "recalibration"))
    order = torch.randperm(len(train)).to(train.x.device)
    with recalibrating(network):
        for part in parts_of(order, spec, batching):
            run(train.x.index_select(0, part), train.y.index_select(0, part))


def parts_of(order: Tensor, spec: TrainingSpec, batching: Batching) -> Iterator[Tensor]:
    """The samples that a training computes at once, in order: batches, or the parts of accumulated ones."""
    micro = spec.optimization.micro_batch_size or batching.batch_size
    for batch in batching.slices:
        samples = order[batch]
        yield from samples.tensor_split(ceil(len(samples) / micro))


@contextmanager
def recalibrating(network: nn.Module) -> Iterator[None]:
    """Inside the block the batch norms in training mode that keep running statistics take notes.

    Afterwards these are the statistics of all that reached them; of those that nothing reached they stay.
    If the block raises, they are what it left.
    """
    norms = [norm for _, norm in tracking_norms(network) if norm.training]
    batches = [known(norm.num_batches_tracked).clone() for norm in norms]
    with listening(norms) as populations:
        yield
    for norm, population, count in zip(norms, populations, batches, strict=True):
        if population.count:
            known(norm.running_mean).copy_(population.mean)
            known(norm.running_var).copy_(population.variance)
            known(norm.num_batches_tracked).copy_(count)


@contextmanager
def listening(norms: Sequence[_BatchNorm]) -> Iterator[list[Population]]:
    """Inside the block each norm takes note of what reaches it."""
    populations = [Population(norm) for norm in norms]
    hooks = [
        norm.register_forward_pre_hook(population.add)
        for norm, population in zip(norms, populations, strict=True)
    ]
    try:
        yield populations
    finally:
        for hook in hooks:
            hook.remove()


def tracking_norms(network: nn.Module) -> list[tuple[str, _BatchNorm]]:
    """The batch norms that keep running statistics, with their names, in order."""
    return [
        (name, module)
        for name, module in network.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    ]


def statistics_of(network: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """Copies of the running mean and variance of each batch norm that keeps them, by its name."""
    return {
        name: (known(norm.running_mean).clone(), known(norm.running_var).clone())
        for name, norm in tracking_norms(network)
    }


def shifts(network: nn.Module, before: dict[str, tuple[Tensor, Tensor]]) -> tuple[NormShift, ...]:
    """How far running statistics have moved since `statistics_of` gave those before."""
    found = []
    for name, (mean, variance) in before.items():
        norm = network.get_submodule(name)
        assert isinstance(norm, _BatchNorm)  # its statistics were taken from it
        # What eps adds is what both are seen through; a channel that is always zero has moved by nothing.
        spread = variance.double() + norm.eps
        of_mean = (known(norm.running_mean) - mean).double().abs() / spread.sqrt()
        of_variance = (known(norm.running_var) - variance).double().abs() / spread
        numbers = [of_mean.mean(), of_mean.max(), of_variance.mean(), of_variance.max()]
        mean_shift, largest_mean_shift, variance_shift, largest = torch.stack(numbers).tolist()
        found.append(
            NormShift(
                layer=name,
                mean_shift=mean_shift,
                largest_mean_shift=largest_mean_shift,
                variance_shift=variance_shift,
                largest_variance_shift=largest,
            )
        )
    return tuple(found)


def by_channel(norm: nn.Module, x: Tensor, context: Context | None = None) -> Tensor:
    """What a batch norm takes its statistics over: `[channels, values]`, float32 or wider, without padding."""
    x = x.detach().to(torch.promote_types(x.dtype, torch.float32))
    if not isinstance(norm, TokenBatchNorm):
        return x.transpose(0, 1).flatten(1)
    tokens = x.flatten(0, 1)
    if context is not None and context.padding is not None:
        tokens = tokens[context.padding.logical_not().flatten()]
    return tokens.T
