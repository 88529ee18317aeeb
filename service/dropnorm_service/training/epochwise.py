"""What of a network follows from the epoch alone."""

from __future__ import annotations

from dropnorm.spec import TrainingSpec
from dropnorm_service.training.design import Design
from dropnorm_service.training.dropout_rates import DropoutRates
from dropnorm_service.training.freezing import FrozenNorms
from dropnorm_service.training.network import Network


class Epochwise:
    """A network with its dropout rates and the batch norms that stand still, epoch by epoch.

    Args:
        network: as it was built.
        paper: what it was built from.
        spec: says what changes.
    """

    def __init__(self, network: Network, paper: Design, spec: TrainingSpec) -> None:
        self.network = network
        self.rates = DropoutRates(network, paper, spec)
        self._frozen = FrozenNorms(network, paper)

    def train(self, epoch: int) -> None:
        """Training mode, as in an epoch from 1."""
        self.network.train()
        self.rates.enter(epoch)
        self._frozen.enter(epoch)
