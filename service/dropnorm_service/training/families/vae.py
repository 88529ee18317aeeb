"""Variational autoencoders (Kingma & Welling 2014)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from dropnorm.spec import VAE, ActivationFunction
from dropnorm.spec import layers as spec
from dropnorm_service.training.elements import Element
from dropnorm_service.training.layout import Frame, Input, Layout, Part, check_width
from dropnorm_service.training.network import Network
from dropnorm_service.training.placement import regularized


def vae(settings: VAE, frame: Frame) -> Layout:
    """An encoder to mean and log variance of the code, and a decoder from a code to the sample's values.

    With n values per sample, one hidden layer of h and a code of d numbers it has
    `(n + 1) h + 2 (h + 1) d + (d + 1) h + (h + 1) n` parameters: 815,824 at 784-500-20.

    Raises:
        InvalidSpecError: the code or a sample is larger than a layer may be wide.
    """
    around, latent = frame.regularization, settings.latent
    check_width(2 * latent, "architecture.vae.latent")
    check_width(frame.outputs, "architecture.vae")
    encoder = [
        *regularized(around, "input", "encoder.input."),
        Element("encoder.flatten", spec.Flatten()),
        *_hidden(settings.hidden, settings.activation, frame, "encoder."),
        Element("encoder.code", spec.Linear(units=2 * latent), "architecture.vae.latent"),
    ]
    decoder = [
        *_hidden(settings.hidden[::-1], settings.activation, frame, "decoder."),
        Element("decoder.output.linear", spec.Linear(units=frame.outputs)),
        *regularized(around, "output", "decoder.output."),
    ]
    return Layout(
        parts=(
            Part(tuple(encoder), frame.input_shape, (2 * latent,)),
            Part(tuple(decoder), (latent,), (frame.outputs,)),
        ),
        inputs=(Input(frame.input_shape), Input((latent,))),
        network=VariationalAutoencoder,
    )


def _hidden(
    widths: Sequence[int], function: ActivationFunction, frame: Frame, part: str
) -> list[Element]:
    elements: list[Element] = []
    for index, width in enumerate(widths):
        prefix = f"{part}hidden.{index}."
        field = "architecture.vae.hidden"
        elements.append(Element(f"{prefix}linear", spec.Linear(units=width), field))
        activation = Element(
            f"{prefix}activation", spec.Activation(function=function), "architecture.vae.activation"
        )
        elements += regularized(frame.regularization, "hidden", prefix, activation)
    return elements


class VariationalAutoencoder(Network):
    """`[batch, *input_shape]` -> `[batch, values]`: what the decoder makes of a code, before the likelihood's scale.

    Args:
        modules: `encoder` and `decoder`.
        fields: see `Network`.
    """

    def __init__(self, modules: nn.Sequential, fields: Mapping[str, str]) -> None:
        super().__init__()
        self.encoder = modules.get_submodule("encoder")
        self.decoder = modules.get_submodule("decoder")
        self.fields = dict(fields)

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Decode the mean of each sample's code, or with noise, `[batch, latent]`, a draw of it.

        Returns:
            The decoder's output; with noise the code's mean and log variance stand behind it:
            `[batch, values + 2 * latent]`.
        """
        code: Tensor = self.encoder(x)
        mean, log_variance = code.chunk(2, dim=1)
        if noise is None:
            decoded: Tensor = self.decoder(mean)
            return decoded
        drawn = mean + noise * (0.5 * log_variance).exp()
        return torch.cat([self.decoder(drawn), code], dim=1)
