"""Which tokens a masked language model has to restore, and what stands in their place (Devlin et al. 2018)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from dropnorm_service.training.data.tokens import MASK, PAD, SPECIAL

CHOSEN_SHARE = 0.15
_MASKED_SHARE, _REPLACED_SHARE = 0.8, 0.1

Uniform = Callable[[torch.Size], Tensor]
"""Draws uniformly from 0 to below 1, on the device of the tokens."""


class Masked(NamedTuple):
    """A batch with tokens hidden.

    Attributes:
        tokens: what the network sees, int64 `[batch, length]`.
        chosen: places of the chosen tokens, int64 `[batch, count]`.
        targets: the tokens that stood there, int64 `[batch, count]`; `PAD` where a short sequence has fewer.
    """

    tokens: Tensor
    chosen: Tensor
    targets: Tensor


def chosen_of(length: int) -> int:
    """Tokens chosen of a full sequence of a length: 15 %, and one at least."""
    return max(1, round(CHOSEN_SHARE * length))


def chosen_counts(tokens: Tensor) -> Tensor:
    """Tokens that are chosen of each sequence, `[batch]`: 15 % of those that are not special, and one at least if it
    has any."""
    counts = (tokens >= len(SPECIAL)).sum(dim=1)
    return torch.minimum((counts * CHOSEN_SHARE).round().clamp(min=1), counts)


def mask(tokens: Tensor, vocabulary: int, uniform: Uniform) -> Masked:
    """Choose 15 % of each sequence's tokens: 80 % become `MASK`, 10 % any other token and 10 % stay.

    Special tokens are neither chosen nor put in another's place. Of a short sequence fewer are chosen, one at least
    if it has any. Shapes do not depend on the tokens, so nothing waits for the device.

    Args:
        tokens: int64 `[batch, length]`.
        vocabulary: number of tokens, special ones included.
        uniform: draws the random numbers.
    """
    order = uniform(tokens.shape).masked_fill(tokens < len(SPECIAL), 2.0)
    chosen = order.topk(chosen_of(tokens.shape[1]), largest=False).indices
    kept = torch.arange(chosen.shape[1], device=tokens.device) < chosen_counts(tokens).unsqueeze(1)
    originals = tokens.gather(1, chosen)
    fate = uniform(chosen.shape)
    others = len(SPECIAL) + (uniform(chosen.shape) * (vocabulary - len(SPECIAL))).long()
    shown = torch.where(fate < _MASKED_SHARE + _REPLACED_SHARE, others, originals)
    shown = torch.where(fate < _MASKED_SHARE, MASK, shown)
    shown = torch.where(kept, shown, originals)
    return Masked(tokens.scatter(1, chosen, shown), chosen, torch.where(kept, originals, PAD))
