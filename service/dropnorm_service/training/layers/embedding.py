"""What tokens become before layers can take them: a vector each, of what they are and where they stand."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dropnorm_service.training.layers.context import Context, Contextual


class Embedding(nn.Embedding):
    """`y = scale * weight[token]`: int64 `[batch, length]` -> `[batch, length, width]`.

    Args:
        tokens: size of the vocabulary.
        width: features.
        std: standard deviation of the normal distribution that the weights are drawn from.
        scale: `sqrt(width)` in Vaswani et al. 2017, section 3.4.
    """

    def __init__(self, tokens: int, width: int, *, std: float, scale: float = 1.0) -> None:
        self._std = std
        super().__init__(tokens, width)
        self.scale = scale

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=self._std)

    def forward(self, tokens: Tensor) -> Tensor:
        found = super().forward(tokens)
        return found if self.scale == 1.0 else found * self.scale

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, scale={self.scale:g}"


class LearnedPositions(Embedding):
    """A learned vector for each place (Devlin et al. 2018): `[batch, length]` -> `[batch, length, width]`.

    As many rows as there are places at most; which tokens stand there does not matter.
    """

    def forward(self, tokens: Tensor) -> Tensor:
        return _per_sample(self.weight, tokens)


class SinusoidalPositions(nn.Module):
    """Sines and cosines of each place (Vaswani et al. 2017, section 3.5).

    `[batch, length]` -> `[batch, length, width]`. Feature `2i` of place p is `sin(p / 10000^(2i / width))` and
    feature `2i + 1` the cosine of the same.
    """

    table: Tensor

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.register_buffer("table", sinusoids(length, width))

    def forward(self, tokens: Tensor) -> Tensor:
        return _per_sample(self.table, tokens)

    def extra_repr(self) -> str:
        return f"{self.table.shape[0]}, {self.table.shape[1]}"


def sinusoids(length: int, width: int) -> Tensor:
    """The values of `SinusoidalPositions`, float32 `[length, width]`; computed in double precision."""
    places = torch.arange(length, dtype=torch.float64).unsqueeze(1)
    even = torch.arange(0, width, 2, dtype=torch.float64)
    angles = places * 10000.0 ** (-even / width)
    both = torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)
    return both[:, :width].float()


class Segments(Embedding):
    """A learned vector for the part of the input that a token stands in: `[batch, length]` -> `[batch, length, width]`.

    Args:
        types: parts that are told apart; what stands behind the last counts to it.
        width: features.
        separator: the token that ends a part and counts to it.
        std: as of an `Embedding`.
    """

    def __init__(self, types: int, width: int, *, separator: int, std: float) -> None:
        super().__init__(types, width, std=std)
        self.separator = separator

    def forward(self, tokens: Tensor) -> Tensor:
        ends = (tokens == self.separator).long()
        before = ends.cumsum(dim=1) - ends
        return super().forward(before.clamp(max=self.num_embeddings - 1))


class TiedLinear(Contextual):
    """`y = x embedding^T + bias`: scores of tokens by the vectors that stand for them (Press & Wolf 2017).

    The weights are the context's, so that they are no parameters twice.
    """

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(tokens))

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        assert context is not None  # networks that tie their output hand the embedding down
        assert context.embedding is not None
        return F.linear(x, context.embedding, self.bias)

    def extra_repr(self) -> str:
        return f"{self.bias.shape[0]}"


class FirstToken(nn.Module):
    """What has become of the first token: `[batch, length, features]` -> `[batch, features]`."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0]


class LastToken(nn.Module):
    """What has become of the last token: `[batch, length, features]` -> `[batch, features]`."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, -1]


class AtEachToken(Contextual):
    """The context's memory, one vector, at each token: `[batch, length, ...]` -> `[batch, length, features]`."""

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        assert context is not None  # networks that sum their source up hand it down
        assert context.memory is not None
        return context.memory.expand(-1, x.shape[1], -1)


def _per_sample(table: Tensor, tokens: Tensor) -> Tensor:
    samples, length = tokens.shape
    return table[:length].expand(samples, -1, -1)
