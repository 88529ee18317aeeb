"""Variational autoencoders: the evidence lower bound (Kingma & Welling 2014)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dropnorm.results import Metrics
from dropnorm.spec import VAE, TrainingSpec
from dropnorm_service.training.batching import derived_seed
from dropnorm_service.training.data import Split, SplitData, ValueRange
from dropnorm_service.training.inference import Inference
from dropnorm_service.training.objectives.base import Forward
from dropnorm_service.training.pictures import Pictures, images

_SHOWN = 16


class Reconstruction:
    """The negative evidence lower bound, in nats per sample.

    `-log p(x | z) + KL(q(z | x) || N(0, I))` for one draw z of the code, whose mean m and log variance v the
    encoder gives: `KL = sum(exp(v) + m^2 - 1 - v) / 2`. In evaluation the draws are always the same.
    """

    score_names = ("loss", "reconstruction", "kl")

    def __init__(self, spec: TrainingSpec, data: SplitData) -> None:
        assert isinstance(spec.architecture, VAE)
        self._settings, self._seed = spec.architecture, spec.seed
        self._range = ValueRange(data)
        self._data = data

    def training_loss(self, forward: Forward, x: Tensor, y: Tensor) -> Tensor:
        noise = torch.randn(len(x), self._settings.latent, device=x.device)
        return torch.stack(self._terms(forward(x, noise), x)).sum(dim=0).mean()

    def weight(self, x: Tensor, y: Tensor) -> int:
        return len(x)

    def scores(self, inference: Inference, part: Split) -> Tensor:
        generator = torch.Generator(part.x.device).manual_seed(derived_seed(self._seed, "codes"))

        def measure(network: nn.Module, batch: Split) -> Tensor:
            shape = (len(batch), self._settings.latent)
            noise = torch.randn(shape, generator=generator, device=batch.x.device)
            terms = self._terms(network(batch.x, noise), batch.x)
            return torch.stack([each.sum(dtype=torch.float64) for each in terms])

        reconstruction, kl = inference.total(part, measure) / len(part)
        return torch.stack([reconstruction + kl, reconstruction, kl])

    def metrics(self, inference: Inference, part: Split) -> Metrics:
        loss, reconstruction, kl = self.scores(inference, part).tolist()
        return Metrics(
            samples=len(part), loss=loss, elbo=-loss, reconstruction=reconstruction, kl=kl
        )

    def gap(self, train: Metrics, test: Metrics) -> float:
        """Loss of test minus that of train."""
        return test.loss - train.loss

    def pictures(self, inference: Inference) -> Pictures:
        """Test samples above their reconstructions, and samples of the prior; of images alone."""
        shape, test = self._data.input_shape, self._data.test
        if len(shape) != 3:
            return {}
        generator = torch.Generator(test.x.device).manual_seed(derived_seed(self._seed, "prior"))
        codes = torch.randn(
            (_SHOWN**2 // 4, self._settings.latent), generator=generator, device=test.x.device
        )
        shown = test.x[:_SHOWN]
        with inference.evaluating() as network:
            restored = self._to_unit(network(shown)).view(-1, *shape)
            made = self._to_unit(network.get_submodule("decoder")(codes)).view(-1, *shape)
        return {
            "reconstructions": images(torch.cat([self._range.to_unit(shown), restored])),
            "samples": images(made),
        }

    def _terms(self, outputs: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Negative log-likelihood and divergence of each sample, float32 `[batch]`."""
        values, mean, log_variance = outputs.float().tensor_split(
            (-2 * self._settings.latent, -self._settings.latent), dim=1
        )
        kl = 0.5 * (log_variance.exp() + mean.square() - 1.0 - log_variance).sum(dim=1)
        if self._settings.likelihood == "gaussian":
            squares = (values - x.flatten(1)).square() + math.log(2.0 * math.pi)
            return 0.5 * squares.sum(dim=1), kl
        target = self._range.to_unit(x).flatten(1)
        losses = F.binary_cross_entropy_with_logits(values, target, reduction="none")
        return losses.sum(dim=1), kl

    def _to_unit(self, values: Tensor) -> Tensor:
        """Mean of the likelihood, 0 to 1."""
        if self._settings.likelihood == "bernoulli":
            return values.sigmoid()
        return self._range.to_unit(values.view(-1, *self._data.input_shape))
