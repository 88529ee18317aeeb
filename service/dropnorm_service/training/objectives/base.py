"""What every kind of learning problem tells the training loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from dropnorm.results import Metrics
from dropnorm_service.training.data import Split
from dropnorm_service.training.inference import Inference
from dropnorm_service.training.pictures import Pictures

Forward = Callable[..., Tensor]
"""A network's forward pass, compiled or not."""


class Objective(Protocol):
    """What a training minimises and how a split is judged: all that differs between kinds of task.

    The loop treats a loss as a tensor that it sums for the backward pass and never as one number, so an
    objective may return a loss per model.
    """

    @property
    def score_names(self) -> tuple[str, ...]:
        """What `scores` measures, `loss` first: `EpochMetrics` has `train_eval_{name}` and `validation_{name}`."""

    def training_loss(self, forward: Forward, x: Tensor, y: Tensor) -> Tensor:
        """The mean loss of a batch in training, differentiable, on the device."""

    def weight(self, x: Tensor, y: Tensor) -> Tensor | int:
        """What `training_loss` of a batch is a mean over: samples or tokens, on the device.

        The loss of a batch is the mean of those of its parts by these weights.
        """

    def scores(self, inference: Inference, part: Split) -> Tensor:
        """What each epoch measures of a whole split: float64 `[len(score_names)]`, on the device."""

    def metrics(self, inference: Inference, part: Split) -> Metrics:
        """Everything there is to say of a split."""

    def pictures(self, inference: Inference) -> Pictures:
        """What there is to see of a trained network; most have nothing."""

    def gap(self, train: Metrics, test: Metrics) -> float:
        """How much worse test is than train."""
