"""Norms over batches and over samples."""

from __future__ import annotations

from functools import partial
from math import prod

from torch import nn

from dropnorm.spec.norms import BatchNormSettings, GroupNormSettings, SampleNormSettings
from dropnorm_service.training.layers.blueprints.paper import (
    Blueprint,
    DoesNotFit,
    Shape,
    describe,
    image,
)
from dropnorm_service.training.layers.norms import RMSNorm, groups_of


def batch_norm(layer: BatchNormSettings, shape: Shape) -> Blueprint:
    """Any shape, which it keeps: per feature of a vector, per channel of an image."""
    kind = nn.BatchNorm1d if len(shape) == 1 else nn.BatchNorm2d
    return Blueprint(
        make=partial(
            kind,
            shape[0],
            eps=layer.eps,
            momentum=layer.momentum,
            affine=layer.affine,
            track_running_stats=layer.track_running_stats,
        ),
        text=f"{kind.__name__}({shape[0]})",
        output_shape=shape,
        parameters=2 * shape[0] * layer.affine,
    )


def layer_norm(layer: SampleNormSettings, shape: Shape) -> Blueprint:
    """Any shape, which it keeps: all values of a sample together."""
    return _group_norm(layer, shape, 1, "LayerNorm")


def group_norm(layer: GroupNormSettings, shape: Shape) -> Blueprint:
    """Any shape, which it keeps: groups of features or channels."""
    groups = groups_of(shape[0], layer.groups, prod(shape[1:]))
    return _group_norm(layer, shape, groups or 1, f"GroupNorm, {groups} groups")


def instance_norm(layer: SampleNormSettings, shape: Shape) -> Blueprint:
    """`(C, H, W)`, which it keeps: each channel by itself."""
    channels, *size = image(shape, "instance_norm")
    if prod(size) == 1:
        raise DoesNotFit(
            f"instance norm has one value per channel in {describe(shape)}, which it would make zero; "
            "take a group or a layer norm, or let less pooling come before it"
        )
    return _group_norm(layer, shape, channels, "InstanceNorm")


def rms_norm(layer: SampleNormSettings, shape: Shape) -> Blueprint:
    """Any shape, which it keeps: all values of a sample together."""
    return Blueprint(
        make=partial(RMSNorm, shape[0], eps=layer.eps, affine=layer.affine),
        text=f"RMSNorm({shape[0]})",
        output_shape=shape,
        parameters=shape[0] * layer.affine,
    )


def _group_norm(layer: SampleNormSettings, shape: Shape, groups: int, name: str) -> Blueprint:
    if prod(shape) // groups == 1:
        raise DoesNotFit(
            f"a norm of single values makes them zero, and {describe(shape)} is one value; leave the norm out"
        )
    return Blueprint(
        make=partial(nn.GroupNorm, groups, shape[0], eps=layer.eps, affine=layer.affine),
        text=f"{name}({shape[0]})",
        output_shape=shape,
        parameters=2 * shape[0] * layer.affine,
    )
