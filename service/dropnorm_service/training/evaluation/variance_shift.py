"""The variance shift between dropout and batch norm (Li et al. 2018), measured.

Dropout leaves the mean of an activation as it is and raises its variance, in training only. A batch norm
behind it learns that variance, and in evaluation divides by it what has less.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from dropnorm.results import VarianceShift
from dropnorm_service.training.batching import derived_seed
from dropnorm_service.training.dropout_rates import Drops, stop_dropping
from dropnorm_service.training.evaluation.modes import buffers_kept, seeded
from dropnorm_service.training.evaluation.trained import Trained
from dropnorm_service.training.lints.flow import dropout_before_norm
from dropnorm_service.training.recalibration import (
    Population,
    known,
    listening,
    parts_of,
    tracking_norms,
)


def variance_shift(trained: Trained) -> tuple[VarianceShift, ...]:
    """The variance at each batch norm that keeps running statistics, as in training and as in evaluation.

    All is over the training split in the same batches. In training mode dropout acts and batch norms ahead
    normalise by their batches; what that does to running statistics is undone. Norms of auxiliary heads, which
    take no part in evaluation, are left out.
    """
    network = trained.inference.network

    def without_dropout() -> None:
        trained.train_mode()
        stop_dropping(network)

    with buffers_kept(network):
        training = _populations(trained, trained.train_mode)
        undropped = _populations(trained, without_dropout)
    evaluation = _populations(trained, network.eval)
    ahead = _rates_ahead(trained)
    return tuple(
        _shift(
            name,
            norm,
            (training[name], evaluation[name], undropped[name]),
            ahead.get(name, ((), ())),
        )
        for name, norm in tracking_norms(network)
        if training[name].count and evaluation[name].count
    )


@torch.inference_mode()
def _populations(trained: Trained, enter_mode: Callable[[], object]) -> dict[str, Population]:
    """What reaches each norm in one pass over the training split, the network in a mode."""
    inference, train, seed = trained.inference, trained.data.train, trained.spec.seed
    device = train.x.device
    generator = torch.Generator().manual_seed(derived_seed(seed, "variance_shift"))
    order = torch.randperm(len(train), generator=generator).to(device)
    norms = dict(tracking_norms(inference.network))
    with listening(list(norms.values())) as populations:
        for index, part in enumerate(parts_of(order, trained.spec, trained.batching)):
            drawn = derived_seed(seed, "variance_shift", index)
            with inference.evaluating() as network, seeded(drawn, device):
                enter_mode()
                network(train.x.index_select(0, part))
            network.eval()
            inference.between_batches()
    return dict(zip(norms, populations, strict=True))


def _shift(
    name: str,
    norm: _BatchNorm,
    populations: tuple[Population, Population, Population],
    ahead: tuple[tuple[float, ...], tuple[float, ...]],
) -> VarianceShift:
    training, evaluation, undropped = (each.variance for each in populations)
    # What eps adds is what all are seen through; a channel that is always zero has not shifted.
    ratios = [(each + norm.eps) / (training + norm.eps) for each in (evaluation, undropped)]
    running = known(norm.running_var).double()
    means = torch.stack([training, evaluation, running, *ratios]).mean(dim=1).tolist()
    train_variance, eval_variance, running_variance, ratio, dropout_ratio = means
    direct, upstream = ahead
    return VarianceShift(
        layer=name,
        train_variance=train_variance,
        eval_variance=eval_variance,
        running_variance=running_variance,
        ratio=ratio,
        dropout_ratio=dropout_ratio,
        direct_rates=direct,
        upstream_rates=upstream,
    )


def _rates_ahead(trained: Trained) -> dict[str, tuple[tuple[float, ...], tuple[float, ...]]]:
    """Each norm's name -> the different rates in force of dropout ahead of it, without weights in between and over
    weights."""
    found, network = dropout_before_norm(trained.paper), trained.inference.network
    rates: dict[str, tuple[set[float], set[float]]] = {}
    for kind, pairs in enumerate((found.direct, found.upstream)):
        for dropout, norm in pairs:
            module = network.get_submodule(dropout.name)
            if isinstance(module, Drops) and module.rate:
                rates.setdefault(norm.name, (set(), set()))[kind].add(module.rate)
    return {
        name: (tuple(sorted(direct)), tuple(sorted(upstream)))
        for name, (direct, upstream) in rates.items()
    }
