"""Norms over batches and over samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
from dropnorm_service.training.layers.ghosts import GhostBatchNorm
from dropnorm_service.training.layers.norms import (
    RMSNorm,
    TokenBatchNorm,
    TokenGroupNorm,
    groups_of,
)
from dropnorm_service.training.layers.synchronized import SynchronizedBatchNorm

_SEQUENCE = 2
"""Dimensions of a sample that is a sequence, `(tokens, features)`."""
_BATCH_NORMS = {1: nn.BatchNorm1d, 2: TokenBatchNorm, 3: nn.BatchNorm2d}


def batch_norm(layer: BatchNormSettings, shape: Shape) -> Blueprint:
    """Any shape, which it keeps: per feature of a vector or of a sequence's tokens, per channel of an image."""
    channels = _channels(shape)
    kind: type[nn.Module] = _BATCH_NORMS[len(shape)]
    make: Callable[..., nn.Module] = kind
    for field in ("ghost_batch_size", "synchronized"):
        if getattr(layer, field) and len(shape) == _SEQUENCE:
            raise DoesNotFit(f"a batch norm of sequences has no {field}; leave it out", field)
    if layer.synchronized:
        make = SynchronizedBatchNorm
    elif layer.ghost_batch_size is not None or _waits(layer, shape):
        make = partial(GhostBatchNorm, size=layer.ghost_batch_size)
    return Blueprint(
        make=partial(
            make,
            channels,
            eps=layer.eps,
            momentum=None if layer.averaging == "cumulative" else layer.momentum,
            affine=layer.affine,
            track_running_stats=layer.track_running_stats,
        ),
        text=", ".join([f"{kind.__name__}({channels})", *_forms(layer)]),
        output_shape=shape,
        parameters=2 * channels * layer.affine,
    )


def _waits(layer: BatchNormSettings, shape: Shape) -> bool:
    """Whether torch's own module would wait for the device at each step."""
    return layer.averaging == "cumulative" and len(shape) != _SEQUENCE


def _forms(layer: BatchNormSettings) -> Iterator[str]:
    if layer.averaging == "cumulative":
        yield "cumulative average"
    if layer.ghost_batch_size is not None:
        yield f"ghost batches of {layer.ghost_batch_size}"
    if layer.synchronized:
        yield "over all devices"
    if layer.freeze_after is not None:
        yield f"frozen after epoch {layer.freeze_after}"


def layer_norm(layer: SampleNormSettings, shape: Shape) -> Blueprint:
    """Any shape, which it keeps: all values of a sample, or of a token, together."""
    return _group_norm(layer, shape, 1, "LayerNorm")


def group_norm(layer: GroupNormSettings, shape: Shape) -> Blueprint:
    """Any shape, which it keeps: groups of features, of a token too, or of channels."""
    groups = groups_of(_channels(shape), layer.groups, _values(shape))
    return _group_norm(layer, shape, groups or 1, f"GroupNorm, {groups} groups")


def instance_norm(layer: SampleNormSettings, shape: Shape) -> Blueprint:
    """`(C, H, W)`, which it keeps: each channel by itself."""
    channels, *size = image(shape, "instance_norm", "take layer_norm or group_norm")
    if prod(size) == 1:
        raise DoesNotFit(
            f"instance norm has one value per channel in {describe(shape)}, which it would make zero; "
            "take a group or a layer norm, or let less pooling come before it"
        )
    return _group_norm(layer, shape, channels, "InstanceNorm")


def rms_norm(layer: SampleNormSettings, shape: Shape) -> Blueprint:
    """Any shape, which it keeps: all values of a sample, or of a token, together."""
    channels = _channels(shape)
    make = (
        partial(nn.RMSNorm, channels, eps=layer.eps, elementwise_affine=layer.affine)
        if len(shape) == _SEQUENCE
        else partial(RMSNorm, channels, eps=layer.eps, affine=layer.affine)
    )
    return Blueprint(
        make=make,
        text=f"RMSNorm({channels})",
        output_shape=shape,
        parameters=channels * layer.affine,
    )


def _group_norm(layer: SampleNormSettings, shape: Shape, groups: int, name: str) -> Blueprint:
    channels = _channels(shape)
    if channels * _values(shape) // groups == 1:
        raise DoesNotFit(
            f"a norm of single values makes them zero, and {describe(shape)} is one value; leave the norm out"
        )
    kind = TokenGroupNorm if len(shape) == _SEQUENCE else nn.GroupNorm
    return Blueprint(
        make=partial(kind, groups, channels, eps=layer.eps, affine=layer.affine),
        text=f"{name}({channels})",
        output_shape=shape,
        parameters=2 * channels * layer.affine,
    )


def _channels(shape: Shape) -> int:
    """What a norm has a gamma for each of: features of a vector or a token, channels of an image."""
    return shape[-1] if len(shape) == _SEQUENCE else shape[0]


def _values(shape: Shape) -> int:
    """Values of each of them that are normalised together: tokens of a sequence are by themselves."""
    return 1 if len(shape) == _SEQUENCE else prod(shape[1:])
