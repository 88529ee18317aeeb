"""How gradients become steps: the kinds of optimizer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from dropnorm.spec._base import Bool, Float, NonNegative, Positive, Problem, SpecModel

Beta = Annotated[Float, Field(ge=0.0, lt=1.0)]
LearningRate = Annotated[Float, Field(gt=0.0, le=1000.0)]


class SGD(SpecModel):
    """Stochastic gradient descent, with momentum or Nesterov's form of it (Sutskever et al. 2013)."""

    kind: Literal["sgd"] = "sgd"
    lr: LearningRate = 0.1
    """Learning rate, above 0 to 1000."""
    momentum: Beta = 0.0
    """Share of the last step carried on, 0 to below 1."""
    nesterov: Bool = False
    """Look ahead along the momentum; needs a momentum above 0."""
    weight_decay: NonNegative = 0.0
    """L2 penalty added to the gradient, 0 or more."""
    decoupled: Bool = False
    """Take the decay off the weights themselves, times the learning rate, instead of adding it to the gradient
    (Loshchilov & Hutter 2017)."""

    def _rules(self) -> Iterator[Problem]:
        yield from _nesterov_rule(self)


class Adam(SpecModel):
    """Adam (Kingma & Ba 2014); with decoupled weight decay it is `adamw`."""

    kind: Literal["adam"] = "adam"
    lr: LearningRate = 1e-3
    """Learning rate, above 0 to 1000."""
    beta1: Beta = 0.9
    """Decay of the mean of the gradient, 0 to below 1."""
    beta2: Beta = 0.999
    """Decay of the mean of its square, 0 to below 1."""
    eps: Positive = 1e-8
    """Added to the denominator, above 0."""
    weight_decay: NonNegative = 0.0
    """L2 penalty added to the gradient, 0 or more."""


class AdamW(SpecModel):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2017)."""

    kind: Literal["adamw"] = "adamw"
    lr: LearningRate = 1e-3
    """Learning rate, above 0 to 1000."""
    beta1: Beta = 0.9
    """Decay of the mean of the gradient, 0 to below 1."""
    beta2: Beta = 0.999
    """Decay of the mean of its square, 0 to below 1."""
    eps: Positive = 1e-8
    """Added to the denominator, above 0."""
    weight_decay: NonNegative = 0.01
    """Share of each weight taken off per step, times the learning rate, 0 or more."""


class RMSprop(SpecModel):
    """RMSprop (Hinton 2012, lecture 6e)."""

    kind: Literal["rmsprop"] = "rmsprop"
    lr: LearningRate = 1e-2
    """Learning rate, above 0 to 1000."""
    alpha: Beta = 0.99
    """Decay of the mean of the squared gradient, 0 to below 1."""
    eps: Positive = 1e-8
    """Added to the denominator, above 0."""
    momentum: Beta = 0.0
    """Share of the last step carried on, 0 to below 1."""
    weight_decay: NonNegative = 0.0
    """L2 penalty added to the gradient, 0 or more."""
    decoupled: Bool = False
    """Take the decay off the weights themselves, times the learning rate, instead of adding it to the gradient
    (Loshchilov & Hutter 2017)."""


class Adagrad(SpecModel):
    """Adagrad (Duchi et al. 2011)."""

    kind: Literal["adagrad"] = "adagrad"
    lr: LearningRate = 1e-2
    """Learning rate, above 0 to 1000."""
    lr_decay: NonNegative = 0.0
    """The rate is divided by 1 plus this times the steps done, 0 or more."""
    initial_accumulator: NonNegative = 0.0
    """What the sum of squared gradients starts at, 0 or more."""
    eps: Positive = 1e-10
    """Added to the denominator, above 0."""
    weight_decay: NonNegative = 0.0
    """L2 penalty added to the gradient, 0 or more."""
    decoupled: Bool = False
    """Take the decay off the weights themselves, times the learning rate, instead of adding it to the gradient
    (Loshchilov & Hutter 2017)."""


class NAdam(SpecModel):
    """Adam with Nesterov's momentum (Dozat 2016)."""

    kind: Literal["nadam"] = "nadam"
    lr: LearningRate = 2e-3
    """Learning rate, above 0 to 1000."""
    beta1: Beta = 0.9
    """Decay of the mean of the gradient, 0 to below 1."""
    beta2: Beta = 0.999
    """Decay of the mean of its square, 0 to below 1."""
    eps: Positive = 1e-8
    """Added to the denominator, above 0."""
    momentum_decay: NonNegative = 0.004
    """How fast the momentum rises to beta1, 0 or more: at step t it is `beta1 * (1 - 0.96^(t * this) / 2)`."""
    weight_decay: NonNegative = 0.0
    """L2 penalty added to the gradient, 0 or more."""
    decoupled: Bool = False
    """Take the decay off the weights themselves, times the learning rate, instead of adding it to the gradient
    (Loshchilov & Hutter 2017)."""


class RAdam(SpecModel):
    """Adam that waits with its adaptive rate until the variance of it is known (Liu et al. 2019)."""

    kind: Literal["radam"] = "radam"
    lr: LearningRate = 1e-3
    """Learning rate, above 0 to 1000."""
    beta1: Beta = 0.9
    """Decay of the mean of the gradient, 0 to below 1."""
    beta2: Beta = 0.999
    """Decay of the mean of its square, 0 to below 1."""
    eps: Positive = 1e-8
    """Added to the denominator, above 0."""
    weight_decay: NonNegative = 0.0
    """L2 penalty added to the gradient, 0 or more."""
    decoupled: Bool = False
    """Take the decay off the weights themselves, times the learning rate, instead of adding it to the gradient
    (Loshchilov & Hutter 2017)."""


class Muon(SpecModel):
    """Momentum made orthogonal for matrices (Jordan 2024), and AdamW for biases, norms, embeddings, convolutions and
    the output layer.

    Its steps are scaled to the size of AdamW's (Liu et al. 2025), so that one learning rate and one decay serve both.
    """

    kind: Literal["muon"] = "muon"
    lr: LearningRate = 1e-3
    """Learning rate, above 0 to 1000."""
    momentum: Beta = 0.95
    """Decay of the mean of a matrix's gradient, 0 to below 1."""
    nesterov: Bool = True
    """Look ahead along the momentum; needs a momentum above 0."""
    beta1: Beta = 0.9
    """AdamW's decay of the mean of the gradient, 0 to below 1."""
    beta2: Beta = 0.999
    """AdamW's decay of the mean of its square, 0 to below 1."""
    eps: Positive = 1e-8
    """Added to AdamW's denominator, above 0."""
    weight_decay: NonNegative = 0.1
    """Share of each weight taken off per step, times the learning rate, 0 or more."""

    def _rules(self) -> Iterator[Problem]:
        yield from _nesterov_rule(self)


Optimizer = Annotated[
    SGD | Adam | AdamW | RMSprop | Adagrad | NAdam | RAdam | Muon, Field(discriminator="kind")
]


def _nesterov_rule(optimizer: SGD | Muon) -> Iterator[Problem]:
    if optimizer.nesterov and optimizer.momentum == 0.0:
        yield Problem(
            "nesterov", "Nesterov's step needs momentum; give a momentum above 0, 0.9 is common"
        )
