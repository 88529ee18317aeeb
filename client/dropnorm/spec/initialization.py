"""How weights start."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from dropnorm.spec._base import Float, Positive, Problem, SpecModel


class Initialization(SpecModel):
    """Initial values of linear, convolutional and recurrent weights; batch norm starts at gamma 1 and beta 0 whatever
    this says. Of a recurrent layer each gate's weights are drawn by themselves, those of the inputs apart from those
    of the last output.

    Embeddings follow `truncated_normal` alone. Otherwise they start normal with mean 0 and standard deviation 0.02, or
    one by the root of their width where they are multiplied by it; in recurrent networks 1.

    Sources: xavier, Glorot & Bengio 2010; kaiming, He et al. 2015; lecun, LeCun et al. 1998; orthogonal, Saxe et al.
    2013.
    """

    scheme: Literal["default", "xavier", "kaiming", "lecun", "orthogonal", "truncated_normal"] = (
        "default"
    )
    """`default`: PyTorch's own, uniform in `+-1/sqrt(fan_in)`. `xavier`: std `gain * sqrt(2 / (fan_in + fan_out))`.
    `kaiming`: std `gain / sqrt(fan_in)`. `lecun`: std `1 / sqrt(fan_in)`. `orthogonal`: orthonormal rows or columns
    times the gain. `truncated_normal`: normal with `std`, cut at two standard deviations."""
    distribution: Literal["normal", "uniform"] = "normal"
    """Shape of the distribution for xavier, kaiming and lecun."""
    gain: Positive | None = None
    """Factor on the standard deviation for xavier, kaiming and orthogonal; absent: the recommended gain of the
    activation that follows (1 for the output layer)."""
    std: Positive = 0.02
    """Standard deviation of `truncated_normal`, above 0."""
    bias: Annotated[Float, Field(ge=-1e6, le=1e6)] = 0.0
    """Initial value of biases, -1,000,000 to 1,000,000; `default` keeps PyTorch's."""

    def _rules(self) -> Iterator[Problem]:
        if self.gain is not None and self.scheme not in ("xavier", "kaiming", "orthogonal"):
            yield Problem(
                "gain",
                f"{self.scheme} takes no gain; leave it out, or choose xavier, kaiming or orthogonal",
            )
        if self.distribution != "normal" and self.scheme not in ("xavier", "kaiming", "lecun"):
            yield Problem(
                "distribution",
                f"{self.scheme} takes no distribution; leave it out, or choose xavier, kaiming or lecun",
            )
        if (
            "std" in self.model_fields_set
            and self.scheme != "truncated_normal"
            and self.std != 0.02
        ):
            yield Problem("std", f"{self.scheme} takes no std; only truncated_normal does")
        if self.bias != 0.0 and self.scheme == "default":
            yield Problem(
                "bias", "the default scheme draws its biases; choose another scheme to set them"
            )
