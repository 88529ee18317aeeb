"""What the layers of a sequence model must know besides their input, handed down through blocks."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn


@dataclass
class Context:
    """Facts of one batch of sequences.

    Attributes:
        padding: bool `[batch, length]`, true where there is no token; None: there is one everywhere.
        memory: what the encoder made of the source, `[batch, source length, features]`; None: there is no encoder.
        memory_padding: `padding` of the source.
        embedding: weights of the embedding, `[tokens, features]`, where an output layer shares them; None: none does.
    """

    padding: Tensor | None = None
    memory: Tensor | None = None
    memory_padding: Tensor | None = None
    embedding: Tensor | None = None

    def repeated(self, times: int) -> Context:
        """The facts of a batch in which each sample stands so many times, one copy after the other."""
        batched = ("padding", "memory", "memory_padding")
        given = {name: getattr(self, name) for name in batched}
        return replace(
            self,
            **{
                name: value.repeat_interleave(times, dim=0)
                for name, value in given.items()
                if value is not None
            },
        )


class Contextual(nn.Module):
    """A module whose forward pass takes a `Context` as its second argument."""


def pass_on(module: nn.Module, x: Tensor, context: Context | None) -> Tensor:
    """A module's output, with the context if it takes one and there is one."""
    takes = context is not None and isinstance(module, Contextual)
    output: Tensor = module(x, context) if takes else module(x)
    return output
