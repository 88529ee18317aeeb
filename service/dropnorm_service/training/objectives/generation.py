"""Adversarial pairs: the non-saturating game (Goodfellow et al. 2014), and how real its images are."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dropnorm.results import Metrics
from dropnorm.spec import GAN, TrainingSpec
from dropnorm_service.training.batching import derived_seed
from dropnorm_service.training.data import Split, SplitData, ValueRange
from dropnorm_service.training.frechet import FeatureExtractor, Moments, frechet_distance
from dropnorm_service.training.inference import Inference
from dropnorm_service.training.objectives.base import Forward
from dropnorm_service.training.pictures import Pictures, images

_SHOWN = 64


class Generation:
    """The losses of both networks, of the same images, added: each is moved by its own alone.

    Discriminator: `-log D(x) - log(1 - D(G(z)))`; generator: `-log D(G(z))`. Both gradients are taken at one
    point, as in the analysis of the two-time-scale update rule (Heusel et al. 2017); Goodfellow's algorithm 1
    moves the discriminator first. In evaluation the noise is always the same, and the score that counts is
    the Fréchet distance.
    """

    score_names = ("loss", "discriminator_loss", "generator_loss")

    def __init__(self, spec: TrainingSpec, data: SplitData) -> None:
        assert isinstance(spec.architecture, GAN)
        self._settings, self._seed = spec.architecture, spec.seed
        self._range, self._data = ValueRange(data), data
        self._features = FeatureExtractor(data)

    def training_loss(self, forward: Forward, x: Tensor, y: Tensor) -> Tensor:
        noise = torch.randn(len(x), self._settings.latent, device=x.device)
        return torch.stack(_losses(forward(noise, self._images(x)))).mean(dim=1).sum()

    def weight(self, x: Tensor, y: Tensor) -> int:
        return len(x)

    def scores(self, inference: Inference, part: Split) -> Tensor:
        """Fréchet distance of as many generated images as the split has, and both losses."""
        self._features.prepare(inference.between_steps)
        generator = self._noise_source(part)
        real, made = Moments(part.x.device), Moments(part.x.device)

        def measure(network: nn.Module, batch: Split) -> Tensor:
            noise = self._noise(len(batch), generator)
            real.add(self._features(batch.x))
            generated: Tensor = network(noise)
            made.add(self._features(self._standardised(generated)))
            discriminator = network.get_submodule("discriminator")
            said, of_generated = (
                discriminator(each).squeeze(1) for each in (self._images(batch.x), generated)
            )
            losses = _losses(torch.stack([said, of_generated, of_generated]))
            return torch.stack([each.sum(dtype=torch.float64) for each in losses])

        losses = inference.total(part, measure) / len(part)
        return torch.cat([frechet_distance(real, made).to(losses.device).unsqueeze(0), losses])

    def metrics(self, inference: Inference, part: Split) -> Metrics:
        distance, discriminator, generator = self.scores(inference, part).tolist()
        return Metrics(
            samples=len(part),
            loss=distance,
            frechet_distance=distance,
            discriminator_loss=discriminator,
            generator_loss=generator,
        )

    def gap(self, train: Metrics, test: Metrics) -> float:
        """Fréchet distance from test minus that from train."""
        return test.loss - train.loss

    def pictures(self, inference: Inference) -> Pictures:
        """Generated images."""
        noise = self._noise(_SHOWN, self._noise_source(self._data.test))
        with inference.evaluating() as network:
            made = network(noise)
        return {"samples": images((made + 1.0) / 2.0)}

    def _images(self, x: Tensor) -> Tensor:
        return 2.0 * self._range.to_unit(x) - 1.0

    def _standardised(self, made: Tensor) -> Tensor:
        return self._range.from_unit((made.float() + 1.0) / 2.0)

    def _noise_source(self, part: Split) -> torch.Generator:
        return torch.Generator(part.x.device).manual_seed(derived_seed(self._seed, "noise"))

    def _noise(self, count: int, generator: torch.Generator) -> Tensor:
        shape = (count, self._settings.latent)
        return torch.randn(shape, generator=generator, device=generator.device)


def _losses(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Discriminator's and generator's loss per sample, float32 `[batch]` each, of `[3, batch]` logits."""
    real, generated, fooled = logits.float()
    return F.softplus(-real) + F.softplus(generated), F.softplus(-fooled)
