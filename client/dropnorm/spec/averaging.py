"""Averages of a network's weights over a training, which generalise better than its last weights."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dropnorm.spec._base import Epochs, Float, SpecModel


class EMA(SpecModel):
    """An exponential moving average of the weights, one step at a time (Polyak & Juditsky 1992).

    Running statistics of batch norms are averaged alike. At first, when there is little to average, the decay is
    `(1 + t) / (10 + t)` after t steps, until that exceeds `decay`.
    """

    kind: Literal["ema"] = "ema"
    decay: Annotated[Float, Field(gt=0.0, lt=1.0)] = 0.999
    """Share of the average carried on at each step, above 0 to below 1; 0.999 looks back about 1000 steps."""


class SWA(SpecModel):
    """Stochastic weight averaging: the mean of the weights at the ends of the last epochs (Izmailov et al. 2018).

    Before each validation the running statistics of batch norms are computed anew for the averaged weights, over the
    whole training split. It wants a learning rate that stays high: a constant schedule, or cosine with restarts.
    """

    kind: Literal["swa"] = "swa"
    start_epoch: Epochs | None = None
    """The first epoch, from 1, whose weights count, at most as many as there are epochs; absent: the first one of the
    last quarter. Until then the weights are those in training, and one of these epochs may be the best."""


Averaging = Annotated[EMA | SWA, Field(discriminator="kind")]
