"""Networks from one sequence of tokens to another, and how they tell a target of their own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from dropnorm_service.training.data.tokens import BOS, EOS, PAD
from dropnorm_service.training.layers import Context
from dropnorm_service.training.network import Network

_LENGTH_PENALTY = 0.6


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

    def step(self, last: Tensor, context: Context) -> tuple[Tensor, Context]:
        """Scores of the next token, and the context in which the step after it is taken.

        A decoder with states goes on from them; another looks at all that has been told.

        Args:
            last: the tokens told last, int64 `[batch, 1]`.
            context: of `encode`, or of the step before; it stays as it is.

        Returns:
            `[batch, vocabulary]`, and the context.
        """
        told = last if context.told is None else torch.cat([context.told, last], dim=1)
        return self.decode(told, context)[:, -1], replace(context, told=told)

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
    told = [torch.full_like(source[:, :1], BOS)]
    ended = torch.zeros_like(told[0], dtype=torch.bool)
    for _ in range(network.target_length - 1):
        scores, context = network.step(told[-1], context)
        likeliest = scores.argmax(dim=1, keepdim=True).masked_fill(ended, PAD)
        told.append(likeliest)
        ended = ended | (likeliest == EOS)
    return torch.cat(told, dim=1)


def beam_search(
    network: EncoderDecoder,
    source: Tensor,
    width: int,
    between_steps: Callable[[], None] = lambda: None,
) -> Tensor:
    """The likeliest target that a search finds which keeps `width` beginnings: int64 `[batch, target_length]`.

    Log-probabilities of whole targets are compared after a division by `((5 + tokens) / 6)^0.6`, as longer ones are
    less likely (Wu et al. 2016, section 7; Vaswani et al. 2017). A beginning that has ended keeps its place.

    Args:
        network: tells the tokens.
        source: int64 `[batch, source length]`.
        width: beginnings that are kept of each target.
        between_steps: called after each token; what it raises ends the search.
    """
    samples = len(source)
    first = width * torch.arange(samples, device=source.device).unsqueeze(1)
    context = network.encode(source).of((first // width).expand(-1, width).flatten())
    told = source.new_full((samples * width, 1), BOS)
    # At first all beginnings are the same, and one of them stands for all.
    scores = torch.full((samples, width), float("-inf"), device=source.device)
    scores[:, 0] = 0.0
    for _ in range(network.target_length - 1):
        following, context = network.step(told[:, -1:], context)
        following = following.float().log_softmax(dim=1)
        ended = (told == EOS).any(dim=1, keepdim=True)
        padding = torch.arange(following.shape[1], device=source.device) == PAD
        following = following.where(~ended, torch.where(padding, 0.0, float("-inf")))
        total = scores.unsqueeze(2) + following.view(samples, width, -1)
        scores, best = total.flatten(1).topk(width, dim=1)
        parents = (first + best // following.shape[1]).flatten()
        told = torch.cat([told[parents], best.view(-1, 1) % following.shape[1]], dim=1)
        context = context.of(parents)
        between_steps()
    lengths = (told != PAD).sum(dim=1).view(samples, width) - 1
    likeliest = (scores / ((5.0 + lengths) / 6.0) ** _LENGTH_PENALTY).argmax(dim=1)
    return told.view(samples, width, -1)[torch.arange(samples, device=source.device), likeliest]
