"""Networks from one sequence of tokens to another, and how they tell a target of their own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dropnorm_service.training.data.tokens import BOS, EOS, PAD
from dropnorm_service.training.layers import Context
from dropnorm_service.training.network import Network


class EncoderDecoder(Network):
    """An encoder of the source and a decoder that tells each token of the target from those before it.

    Args:
        modules: `encoder` and `decoder`.
        fields: see `Network`.
        target_length: tokens of a target at most, its beginning and end included.
    """

    def __init__(
        self, modules: nn.Sequential, fields: Mapping[str, str], *, target_length: int
    ) -> None:
        super().__init__()
        self.encoder = modules.get_submodule("encoder")
        self.decoder = modules.get_submodule("decoder")
        self.fields = dict(fields)
        self.target_length = target_length

    @abstractmethod
    def encode(self, source: Tensor) -> Context:
        """What the decoder has of a source, int64 `[batch, source length]`."""

    @abstractmethod
    def decode(self, given: Tensor, context: Context) -> Tensor:
        """Scores of the token after each of those given, int64 `[batch, steps]`: `[batch, steps, vocabulary]`."""

    def forward(self, source: Tensor, given: Tensor | None = None) -> Tensor:
        """Scores of the tokens after those given; or, where none are, the target that the network tells by itself.

        Args:
            source: int64 `[batch, source length]`.
            given: int64 `[batch, steps]`, from `BOS`.

        Returns:
            `[batch, steps, vocabulary]`; or int64 `[batch, target_length]`, see `greedy`.
        """
        if given is None:
            return greedy(self, source)
        return self.decode(given, self.encode(source))


def greedy(network: EncoderDecoder, source: Tensor) -> Tensor:
    """The target that comes of always taking the likeliest token: int64 `[batch, target_length]`.

    It begins with `BOS`; behind its `EOS` stands `PAD`. Every sequence takes as many steps, so that nothing waits for
    the device and the loop can be exported.
    """
    context = network.encode(source)
    told = torch.full_like(source[:, :1], BOS)
    ended = torch.zeros_like(told, dtype=torch.bool)
    for _ in range(network.target_length - 1):
        likeliest = network.decode(told, context)[:, -1:].argmax(dim=2)
        likeliest = likeliest.masked_fill(ended, PAD)
        told = torch.cat([told, likeliest], dim=1)
        ended = ended | (likeliest == EOS)
    return told
