"""What the layers of a sequence model must know besides their input, handed down through blocks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

from torch import Tensor, nn

RecurrentState = tuple[Tensor, ...]
"""What a recurrent layer hands to its next step, `[batch, units]` each; the first is its output."""


@dataclass
class Context:
    """Facts of one batch of sequences.

    Attributes:
        padding: bool `[batch, length]`, true where there is no token; None: there is one everywhere.
        memory: what the encoder made of the source, `[batch, source length, features]`, or one vector that sums it up,
            `[batch, 1, features]`; None: there is none.
        memory_padding: `padding` of the source.
        embedding: weights of the embedding, `[tokens, features]`, where an output layer shares them; None: none does.
        told: the target so far, int64 `[batch, steps]`, where a decoder looks back at it; None: it does not.
        states: those of recurrent layers, by their depth. A layer starts from what stands here and leaves its last.
    """

    padding: Tensor | None = None
    memory: Tensor | None = None
    memory_padding: Tensor | None = None
    embedding: Tensor | None = None
    told: Tensor | None = None
    states: dict[int, RecurrentState] = field(default_factory=dict)

    def of(self, rows: Tensor) -> Self:
        """What belongs to some of the batch, int64 `[rows]`; the same one may be taken more than once."""

        def taken(value: Tensor | None) -> Tensor | None:
            return None if value is None else value.index_select(0, rows)

        return replace(
            self,
            padding=taken(self.padding),
            memory=taken(self.memory),
            memory_padding=taken(self.memory_padding),
            told=taken(self.told),
            states={
                depth: tuple(each.index_select(0, rows) for each in state)
                for depth, state in self.states.items()
            },
        )


class Contextual(nn.Module):
    """A module whose forward pass takes a `Context` as its second argument."""


def pass_on(module: nn.Module, x: Tensor, context: Context | None) -> Tensor:
    """A module's output, with the context if it takes one and there is one."""
    takes = context is not None and isinstance(module, Contextual)
    output: Tensor = module(x, context) if takes else module(x)
    return output
