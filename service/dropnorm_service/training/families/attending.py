"""What transformers are written with: residual branches of attention and of feed-forward layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from dropnorm.spec import ActivationFunction, LayerNorm, Regularization
from dropnorm.spec import layers as spec
from dropnorm_service.training.elements import Element, Meet, Way
from dropnorm_service.training.layers import Attend, InnerLayer
from dropnorm_service.training.layers.blueprints.sequences import Memory
from dropnorm_service.training.placement import dropout_at, placed_norm, regularized

EMBEDDING_STD = 0.02
"""Standard deviation of embeddings that are not scaled (Devlin et al. 2018)."""


@dataclass(frozen=True)
class Attending:
    """The layers of one transformer.

    Attributes:
        regularization: of the spec; without a norm it is layer norm.
        path: of the architecture in the spec.
        width: features of a token.
        heads: heads of each attention.
        feed_forward: width inside the feed-forward branches.
        activation: their non-linearity.
        norm_position: `pre` norms what enters a branch, `post` its sum with the input.
    """

    regularization: Regularization
    path: str
    width: int
    heads: int
    feed_forward: int
    activation: ActivationFunction
    norm_position: Literal["pre", "post"]

    def encoder_layer(self, name: str) -> list[Element]:
        """Attention among the tokens, then the feed-forward branch."""
        return [*self._attention(f"{name}.attention"), *self._feed_forward(name)]

    def decoder_layer(self, name: str, memory: Memory) -> list[Element]:
        """Attention to earlier tokens, attention to the encoder's memory, then the feed-forward branch."""
        return [
            *self._attention(f"{name}.attention", causal=True),
            *self._attention(f"{name}.cross", memory=memory),
            *self._feed_forward(name),
        ]

    def embedding(self, name: str, summands: dict[str, InnerLayer]) -> list[Element]:
        """The sum of what tokens become by several layers, with its dropout."""
        block = f"{name}.sum"
        ways = tuple(
            Way(label, (self._element(f"{block}.{label}", layer),))
            for label, layer in summands.items()
        )
        dropout = dropout_at(self.regularization.dropout, "embedding_rate", f"{name}.")
        return [Element(block, Meet("add"), self.path, ways), *dropout]

    def norm(self, name: str) -> list[Element]:
        """A norm, by default a layer norm, which then no field asked for but the architecture."""
        given = self.regularization
        if given.norm is not None:
            return placed_norm(given, "hidden", f"{name}.")
        layer_norm = given.model_copy(update={"layer_norm": LayerNorm()})
        return [
            replace(each, field=self.path) for each in placed_norm(layer_norm, "hidden", f"{name}.")
        ]

    def activation_at(self, name: str) -> list[Element]:
        """The activation with its dropout; norms stand at the branches."""
        layer = spec.Activation(function=self.activation)
        activation = self._element(f"{name}.activation", layer)
        return regularized(self.regularization.without_norm(), "hidden", f"{name}.", activation)

    def linear(self, name: str, units: int) -> Element:
        """A linear layer of each token."""
        return self._element(f"{name}.linear", spec.Linear(units=units))

    def _attention(
        self, name: str, *, causal: bool = False, memory: Memory | None = None
    ) -> list[Element]:
        block = f"{name}.sum.branch.heads"
        linear = spec.Linear(units=self.width)
        ways = []
        for label in ("query", "key", "value"):
            here = f"{block}.{label}"
            if memory is None or label == "query":
                ways.append(Way(label, (self._element(here, linear),)))
                continue
            source = self._element(f"{here}.memory", memory)
            ways.append(Way(label, (source, self._element(f"{here}.linear", linear))))
        settings = self.regularization.dropout
        if settings is not None:  # inside the kernel there is one way to drop
            settings = settings.model_copy(update={"method": "unit", "rescaling": "inverted"})
        ways += [
            Way("dropout", (drop,)) for drop in dropout_at(settings, "attention_rate", f"{block}.")
        ]
        ending = Attend(self.heads, causal=causal, of_memory=memory is not None)
        heads = Element(block, ending, self.path, tuple(ways))
        output = self._element(f"{name}.sum.branch.output", linear)
        return self._residual(name, [heads, output])

    def _feed_forward(self, name: str) -> list[Element]:
        here = f"{name}.feed_forward"
        inside = f"{here}.sum.branch"
        branch = [
            self.linear(f"{inside}.inner", self.feed_forward),
            *self.activation_at(f"{inside}.inner"),
            self._element(f"{inside}.output", spec.Linear(units=self.width)),
        ]
        return self._residual(here, branch)

    def _residual(self, name: str, branch: Sequence[Element]) -> list[Element]:
        """`x + branch(x)`, with the norm before or after, and dropout at the branch's end."""
        inside = f"{name}.sum.branch"
        pre = self.norm_position == "pre"
        dropout = dropout_at(self.regularization.dropout, "residual_rate", f"{inside}.")
        whole = (*(self.norm(inside) if pre else ()), *branch, *dropout)
        ways = (Way("branch", whole), Way("shortcut"))
        total = Element(f"{name}.sum", Meet("add"), self.path, ways)
        return [total] if pre else [total, *self.norm(name)]

    def _element(self, name: str, layer: spec.Layer | InnerLayer) -> Element:
        return Element(name, layer, self.path)
