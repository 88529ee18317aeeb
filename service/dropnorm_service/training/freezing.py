"""Batch norms that stand still from some epoch on."""

from __future__ import annotations

from dropnorm.spec import layers as spec
from dropnorm_service.training.design import Design
from dropnorm_service.training.network import Network


class FrozenNorms:
    """The batch norms of a network that its spec freezes: from then on they train as they evaluate.

    What is frozen follows from the epoch alone, so a resumed training cannot disagree with an
    uninterrupted one.

    Args:
        network: as it was built.
        paper: what it was built from.
    """

    def __init__(self, network: Network, paper: Design) -> None:
        self._norms = [
            (
                network.get_submodule(layer.element.name),
                settings.freeze_after,
                settings.freeze_affine,
            )
            for layer in paper.walk()
            if isinstance(settings := layer.element.layer, spec.BatchNorm)
            and settings.freeze_after is not None
        ]

    def enter(self, epoch: int) -> None:
        """Freeze what stands still in an epoch, from 1, of a network that is in training mode."""
        for norm, last, with_parameters in self._norms:
            if epoch > last:
                norm.eval()
                norm.requires_grad_(not with_parameters)
