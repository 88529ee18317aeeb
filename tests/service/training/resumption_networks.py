"""Networks that use everything that a list of layers and a family can be made of."""

from __future__ import annotations

from typing import get_args

from tests.service.training.test_families import SMALL
from tests.service.training.test_regularized_families import ARCHITECTURES

from dropnorm import spec as dn
from dropnorm.spec import layers

IMAGES = dn.Sequential(
    layers=(
        layers.Conv(channels=4),
        layers.Activation(),
        layers.Residual(layers=(layers.Conv(channels=4), layers.Activation())),
        layers.Pool(mode="global_average"),
        layers.Flatten(),
        layers.Linear(units=6),
        layers.Activation(),
    )
)
CONVOLUTIONS = dn.Sequential(
    layers=(layers.Conv(channels=4), layers.Activation(), layers.Pool(mode="global_average"))
)
LISTS: dict[str, dn.Sequential] = {
    "of activations": dn.Sequential(
        layers=(
            layers.Flatten(),
            *(
                each
                for function in get_args(layers.ActivationFunction)
                for each in (layers.Linear(units=5), layers.Activation(function=function))
            ),
            layers.Activation(function="leaky_relu", negative_slope=0.2),
        )
    ),
    "of vectors, without an output layer": dn.Sequential(
        layers=(
            layers.Flatten(),
            layers.Linear(units=8, bias=False, dropconnect_rate=0.2),
            layers.BatchNorm(synchronized=True, freeze_after=1, freeze_affine=True),
            layers.Activation(),
            layers.Dropout(rate=0.3, rescaling="at_inference"),
            layers.Residual(
                layers=(
                    layers.Flatten(),
                    layers.Linear(units=8),
                    layers.LayerNorm(eps=1e-3, affine=False),
                    layers.Activation(),
                    layers.RMSNorm(eps=1e-3, affine=False),
                    layers.Dropout(rate=0.3, method="alpha"),
                )
            ),
            layers.Dropout(rate=0.3, rescaling="l2_norm"),
            layers.Linear(units=3),
        ),
        output_layer=False,
    ),
    "of images, nested": dn.Sequential(
        layers=(
            layers.Conv(channels=4, kernel_size=5, padding=1, bias=False),
            layers.BatchNorm(ghost_batch_size=4, averaging="cumulative", eps=1e-3),
            layers.Conv(channels=4, dilation=2, groups=2),
            layers.GroupNorm(groups=2, eps=1e-3, affine=False),
            layers.InstanceNorm(eps=1e-3, affine=False),
            layers.LayerNorm(),
            layers.RMSNorm(),
            layers.Residual(
                layers=(
                    layers.Conv(channels=4),
                    layers.BatchNorm(momentum=0.3, affine=False),
                    layers.GroupNorm(groups=4),
                    layers.InstanceNorm(),
                    layers.Dropout(rate=0.3, method="spatial"),
                    layers.Pool(mode="average", kernel_size=3, stride=1, padding=1),
                    layers.Residual(layers=(layers.Conv(channels=8, stride=2),)),
                )
            ),
            layers.BatchNorm(track_running_stats=False),
            layers.Dropout(rate=0.3, method="gaussian"),
            layers.Flatten(),
            layers.Linear(units=6),
        )
    ),
}
VARIANTS: dict[str, dn.Architecture] = {
    name: type(architecture).model_validate({**architecture.model_dump(), **changes})
    for name, architecture, changes in (
        ("googlenet", SMALL["googlenet"], {"auxiliary_heads": False}),
        ("densenet", SMALL["densenet"], {"compression": 0.7, "bottleneck": 2}),
        ("gan", ARCHITECTURES["gan"], {"discriminator_rate": 2.0}),
        (
            "transformer",
            ARCHITECTURES["transformer"],
            {
                "norm_position": "pre",
                "final_norms": False,
                "positions": "learned",
                "tied_output": False,
            },
        ),
        ("bert", ARCHITECTURES["bert"], {"segments": 3, "norm_position": "pre"}),
        ("seq2seq", ARCHITECTURES["seq2seq"], {"reverse_source": False}),
    )
}
"""Families by what the small ones of their tests leave as it is."""
