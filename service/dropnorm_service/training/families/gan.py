"""Generative adversarial networks (Goodfellow et al. 2014) in the form of DCGAN (Radford et al. 2015)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dropnorm.spec import GAN, InvalidSpecError, Problem
from dropnorm.spec import layers as spec
from dropnorm_service.training.families.sketch import Sketch
from dropnorm_service.training.layers import Reshape, Upsampling
from dropnorm_service.training.layout import Frame, Input, Layout, Part
from dropnorm_service.training.network import Network
from dropnorm_service.training.placement import regularized

_LEAST_SIDE = 4
_NEGATIVE_SLOPE = 0.2
"""Of the discriminator (Radford et al. 2015, section 4)."""


def gan(settings: GAN, frame: Frame) -> Layout:
    """A generator from noise to an image in -1 to 1, and a discriminator from an image to one logit.

    With batch norm, 3 x 64 x 64 images, 100 numbers of noise and 64 filters the generator has 3,576,704
    parameters and the discriminator 2,765,568. The first linear layer of the one and the last of the
    other are DCGAN's convolutions over the smallest image, written as what they are.

    Raises:
        InvalidSpecError: the samples are no images, or images that cannot be halved.
    """
    generator = Sketch.of_images("gan", "relu", frame)
    halvings = _halvings(*generator.size)
    if not halvings:
        text = (
            f"gan halves images and keeps {_LEAST_SIDE} pixels, and these have "
            f"{generator.size[0]} x {generator.size[1]}; give images whose sides are even and at least 8"
        )
        raise InvalidSpecError([Problem("architecture.gan", text)])
    channels, height, width = frame.input_shape
    smallest = (height >> halvings, width >> halvings)
    return Layout(
        parts=(
            _generator(settings, generator, channels, smallest, halvings, frame),
            _discriminator(settings, frame, halvings),
        ),
        inputs=(Input((settings.latent,)), Input(frame.input_shape)),
        network=partial(AdversarialPair, discriminator_rate=settings.discriminator_rate),
    )


def _generator(
    settings: GAN,
    sketch: Sketch,
    channels: int,
    smallest: tuple[int, int],
    halvings: int,
    frame: Frame,
) -> Part:
    sketch.prefix, sketch.size = "generator.", smallest
    filters = [settings.width * 2**power for power in reversed(range(halvings))]
    values = filters[0] * smallest[0] * smallest[1]
    sketch.check_width(values)
    sketch.add("0.linear", spec.Linear(units=values, bias=not sketch.normed))
    sketch.add("0.reshape", Reshape((filters[0], *smallest)))
    sketch.activate("0")
    for index, count in enumerate(filters[1:], start=1):
        sketch.add(f"{index}.upsampling", Upsampling(count, bias=not sketch.normed))
        sketch.activate(f"{index}")
    sketch.add("output.upsampling", Upsampling(channels, bias=not sketch.normed))
    sketch.add("output.activation", spec.Activation(function="tanh"))
    return Part(tuple(sketch.elements), (settings.latent,), frame.input_shape)


def _discriminator(settings: GAN, frame: Frame, halvings: int) -> Part:
    sketch = Sketch.of_images("gan", "leaky_relu", frame)
    sketch.prefix, sketch.negative_slope = "discriminator.", _NEGATIVE_SLOPE
    sketch.elements += regularized(frame.regularization, "input", "discriminator.input.")
    for index in range(halvings):
        filters = settings.width * 2**index
        sketch.conv(f"{index}.conv", filters, 4, stride=2, padding=1)
        sketch.activate(f"{index}", norm=index > 0)
    sketch.flatten("output")
    sketch.add("output.linear", spec.Linear(units=1, bias=not sketch.normed))
    sketch.elements += regularized(frame.regularization, "output", "discriminator.output.")
    return Part(tuple(sketch.elements), frame.input_shape, (1,))


def _halvings(height: int, width: int) -> int:
    """How often both sides can be halved with four pixels left."""
    count = 0
    while height % 2 == width % 2 == 0 and min(height, width) >= 2 * _LEAST_SIDE:
        height, width, count = height // 2, width // 2, count + 1
    return count


class AdversarialPair(Network):
    """`[batch, latent]` of noise -> images `[batch, *input_shape]` in -1 to 1.

    Args:
        modules: `generator` and `discriminator`.
        fields: see `Network`.
        discriminator_rate: learning rate of the discriminator over that of the generator.
    """

    def __init__(
        self, modules: nn.Sequential, fields: Mapping[str, str], *, discriminator_rate: float
    ) -> None:
        super().__init__()
        self.generator = modules.get_submodule("generator")
        self.discriminator = modules.get_submodule("discriminator")
        self.fields = dict(fields)
        self.lr_factors = {"discriminator": discriminator_rate}
        self.opponents = ("generator", "discriminator")

    def forward(self, noise: Tensor, real: Tensor | None = None) -> Tensor:
        """Images of noise, or with real ones beside, what the discriminator says of both.

        Returns:
            With real images, `[3, batch]` logits: of the real ones, of the generated as the discriminator
            learns from them, and of the generated as the generator does. No gradient of the second
            reaches the generator and none of the third the discriminator.
        """
        generated: Tensor = self.generator(noise)
        if real is None:
            return generated
        fixed = {name: each.detach() for name, each in self.discriminator.named_parameters()}
        logits = (
            self.discriminator(real),
            self.discriminator(generated.detach()),
            functional_call(self.discriminator, fixed, generated),
        )
        return torch.stack([each.squeeze(1) for each in logits])
