"""How far generated images are from real ones, in the features of a classifier (Heusel et al. 2017)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dropnorm.spec import Data, Sequential, TrainingSpec
from dropnorm.spec.layers import Activation, Conv, Flatten, Linear, Pool
from dropnorm_service.training.batching import Batching, epoch_order
from dropnorm_service.training.data import SplitData
from dropnorm_service.training.model import build_model

_FEATURES = 64
_SAMPLES = 20_000
_BATCH_SIZE = 128
_STEPS = 300
_SEED = 0


class FeatureExtractor:
    """A small convolutional classifier of the data's own classes, without its last layer.

    It sees standardised images and is trained on the first use, for 300 steps of Adam on at most 20,000
    training samples under a seed of its own: distances of one data set and split can be compared.
    """

    def __init__(self, data: SplitData) -> None:
        self._data = data
        self._layers: nn.Module | None = None

    def prepare(self, between_steps: Callable[[], None]) -> None:
        """Train it, unless that is done; what `between_steps` raises ends it."""
        if self._layers is None:
            self._layers = self._trained(between_steps)

    def __call__(self, x: Tensor) -> Tensor:
        """`[batch, *input_shape]`, standardised -> float32 `[batch, 64]`."""
        assert self._layers is not None
        features: Tensor = self._layers(x)
        return features

    @torch.inference_mode(False)
    @torch.enable_grad()
    def _trained(self, between_steps: Callable[[], None]) -> nn.Module:
        train, device = self._data.train, self._data.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(_SEED)
            classifier = _classifier(self._data).to(device)
        optimizer = torch.optim.Adam(classifier.parameters(), lr=1e-3)
        batching = Batching.of(min(len(train), _SAMPLES), _BATCH_SIZE)
        for step in range(_STEPS):
            epoch, index = divmod(step, batching.steps_per_epoch)
            if index == 0:
                order = epoch_order(len(train), _SEED, epoch + 1).to(device)
            batch = order[batching.slices[index]]
            loss = F.cross_entropy(classifier(train.x[batch]), train.y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            between_steps()
        return nn.Sequential(*list(classifier.children())[:-1]).eval().requires_grad_(False)


class Moments:
    """Mean and covariance of features that come in batches, in double precision."""

    def __init__(self, device: torch.device) -> None:
        self._count = 0
        self._sum = torch.zeros(_FEATURES, dtype=torch.float64, device=device)
        self._products = torch.zeros(_FEATURES, _FEATURES, dtype=torch.float64, device=device)

    def add(self, features: Tensor) -> None:
        """Take in `[batch, features]`."""
        features = features.double()
        self._count += len(features)
        self._sum += features.sum(dim=0)
        self._products += features.T @ features

    @property
    def mean(self) -> Tensor:
        """`[features]`."""
        return self._sum / self._count

    @property
    def covariance(self) -> Tensor:
        """`[features, features]`."""
        return self._products / self._count - torch.outer(self.mean, self.mean)


def frechet_distance(first: Moments, second: Moments) -> Tensor:
    """`|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))`, of normal distributions (Dowson & Landau 1982).

    The trace of the root is the sum of the roots of the eigenvalues of `C1^(1/2) C2 C1^(1/2)`.
    """
    values, vectors = torch.linalg.eigh(first.covariance)
    root = vectors * values.clamp(min=0.0).sqrt() @ vectors.T
    product = torch.linalg.eigvalsh(root @ second.covariance @ root).clamp(min=0.0)
    traces = first.covariance.trace() + second.covariance.trace()
    apart = (first.mean - second.mean).square().sum()
    return torch.clamp(apart + traces - 2.0 * product.sqrt().sum(), min=0.0)


def _classifier(data: SplitData) -> nn.Module:
    layers = (
        Conv(channels=32, kernel_size=3, stride=2),
        Activation(),
        Conv(channels=64, kernel_size=3, stride=2),
        Activation(),
        Pool(kernel_size=2) if min(data.input_shape[1:]) >= 8 else Pool(mode="global_average"),
        Flatten(),
        Linear(units=_FEATURES),
        Activation(),
    )
    spec = TrainingSpec(
        architecture=Sequential(layers=layers), data=Data(dataset=data.summary.name)
    )
    return build_model(spec, data.input_shape, len(data.summary.class_names))
