"""Attention (Vaswani et al. 2017): every token takes from others what it asks for."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dropnorm_service.training.layers.context import Context, Contextual, pass_on
from dropnorm_service.training.layers.dropout import Dropout


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    hidden: Tensor | None = None,
    causal: bool = False,
    rate: float = 0.0,
) -> Tensor:
    """`softmax(query key^T / sqrt(features)) value`, head by head.

    Args:
        query: `[batch, heads, length, features]`.
        key: `[batch, heads, other length, features]`.
        value: `[batch, heads, other length, values]`.
        hidden: bool `[batch, other length]`, true where there is nothing to look at.
        causal: hide what comes after each token; the lengths are equal.
        rate: share of the softmax's weights that are dropped, the others divided by `1 - rate`.

    Returns:
        `[batch, heads, length, values]`; zeros where a token finds nothing to look at.
    """
    seen = None if hidden is None else hidden.logical_not()[:, None, None, :]
    if causal and seen is not None:
        length = query.shape[-2]
        earlier = torch.ones(length, length, dtype=torch.bool, device=query.device).tril()
        seen, causal = seen & earlier, False
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=seen, dropout_p=rate, is_causal=causal
    )


class Attention(Contextual):
    """Ways that make query, key and value of the input meet by `attention`.

    `[batch, length, features]`; whether key and value are of the encoder's memory is up to their ways.

    Args:
        ways: modules by the names `query`, `key` and `value`, and perhaps `dropout`, that of the weights.
        heads: number of heads; divides the widths of query, key and value.
        causal: hide what comes after each token. As padding stands behind a sequence's end, this hides it
            as well from every token that counts.
        of_memory: key and value are of the encoder's memory.
    """

    def __init__(
        self, ways: Mapping[str, nn.Module], *, heads: int, causal: bool, of_memory: bool
    ) -> None:
        super().__init__()
        self.heads, self.causal, self.of_memory = heads, causal, of_memory
        for name, way in ways.items():
            self.add_module(name, way)

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        query, key, value = (
            pass_on(self.get_submodule(name), x, context)
            .unflatten(-1, (self.heads, -1))
            .transpose(1, 2)
            for name in ("query", "key", "value")
        )
        found = attention(
            query,
            key,
            value,
            hidden=self._hidden(context),
            causal=self.causal,
            rate=self._rate(),
        )
        return found.transpose(1, 2).flatten(2)

    def _hidden(self, context: Context | None) -> Tensor | None:
        if context is None or self.causal:
            return None
        return context.memory_padding if self.of_memory else context.padding

    def _rate(self) -> float:
        drop = self._modules.get("dropout")
        # What is dropped lies inside the kernel, so the module only says how much and when.
        return drop.rate if isinstance(drop, Dropout) and drop.training else 0.0

    def extra_repr(self) -> str:
        return f"heads={self.heads}, causal={self.causal}, of_memory={self.of_memory}"


class FromMemory(Contextual):
    """The encoder's memory in place of the input: `[batch, source length, features]`."""

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        assert context is not None  # only what has an encoder has such layers
        assert context.memory is not None
        return context.memory
