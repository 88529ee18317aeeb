"""Networks that learn what the data looks like: autoencoders and adversarial pairs. Labels are not learned from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dropnorm.spec._base import Float, SpecModel, Width
from dropnorm.spec.families import Widths
from dropnorm.spec.layers import ActivationFunction


class VAE(SpecModel):
    """A variational autoencoder (Kingma & Welling 2014) of linear layers; images are flattened.

    The code of a sample is normal with a diagonal covariance, its prior standard normal. What is maximised is the
    evidence lower bound, with one draw of the code per sample. `regularization` places its dropout and norm around
    each activation of encoder and decoder, at the input of the encoder and at the output of the decoder.
    """

    kind: Literal["vae"] = "vae"
    hidden: Widths = (500,)
    """Widths of the encoder's hidden layers, 1 to 1,048,576 each, 1 to 16 of them; the decoder has them in reverse."""
    latent: Width = 20
    """Numbers in a code, 1 to 1,048,576."""
    activation: ActivationFunction = "tanh"
    """The non-linearity after each hidden layer."""
    likelihood: Literal["bernoulli", "gaussian"] = "bernoulli"
    """How an input value is distributed given its code: `bernoulli`, values scaled to 0 to 1 by the least and the
    greatest of the training split; `gaussian`, standardised values with variance 1."""


class GAN(SpecModel):
    """A generator and a discriminator against each other (Goodfellow et al. 2014), as DCGAN (Radford et al. 2015).

    The generator makes images of noise, the discriminator tells them from the data's. Images are halved as often as
    both sides divide by two and four pixels are left; each time filters double. `regularization` places norm and
    dropout around each activation, but no norm around the discriminator's first; DCGAN has `batch_norm`. The losses
    are those of Goodfellow's non-saturating game, and both networks move at once. Data must be labelled images: the
    Fréchet distance is taken in the features of a classifier that is trained on them first.
    """

    kind: Literal["gan"] = "gan"
    latent: Width = 100
    """Numbers of noise that an image is made of, 1 to 1,048,576."""
    width: Width = 64
    """Filters of the layers next to the image, 1 to 1,048,576."""
    discriminator_rate: Annotated[Float, Field(gt=0.0, le=1000.0)] = 1.0
    """Learning rate of the discriminator over that of the generator, which is the optimizer's, above 0 to 1000: the
    two-time-scale update rule (Heusel et al. 2017)."""
