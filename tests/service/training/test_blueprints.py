"""The arithmetic of every registered layer against what torch makes of it, and every way not to fit."""

from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.service.training.shorthand import LAYERS
from tests.strategies import plain_layers
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dropnorm import spec as dn
from dropnorm.spec import layers
from dropnorm_service.training.layers import (
    ACTIVATIONS,
    BLUEPRINTS,
    Blueprint,
    DoesNotFit,
    InnerLayer,
    Shape,
    shortcut,
)

PLACED = {kind.kind for kind in get_args(InnerLayer)}
KINDS = {kind.model_fields["kind"].default for kind in get_args(get_args(dn.Layer)[0])}


def assert_true(paper: Blueprint, shape: Shape) -> None:
    """The module makes of a batch what its blueprint says."""
    batch = 4
    module = paper.make()
    with FlopCounterMode(display=False) as counter:
        output = module(torch.randn(batch, *shape))
    assert output.shape == (batch, *paper.output_shape)
    assert sum(parameter.numel() for parameter in module.parameters()) == paper.parameters
    assert counter.get_total_flops() == batch * paper.flops


def drawn(layer: dn.Layer, shape: Shape) -> Blueprint | DoesNotFit:
    try:
        return BLUEPRINTS[layer.kind](layer, shape)
    except DoesNotFit as error:
        return error


def test_every_kind_of_layer_has_a_blueprint_and_an_example() -> None:
    # A residual block is made of others, and some are placed by families and never listed.
    assert set(BLUEPRINTS) - PLACED == KINDS - {"residual"}
    assert set(ACTIVATIONS) == set(get_args(dn.ActivationFunction))
    assert {layer.kind for layer, _ in LAYERS} == KINDS - {"residual"}


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=str)
def test_blueprint_is_true(layer: dn.Layer, shape: Shape) -> None:
    assert_true(BLUEPRINTS[layer.kind](layer, shape), shape)


@given(
    plain_layers(),
    st.tuples(st.integers(1, 20)) | st.tuples(*[st.integers(1, 20)] * 3),
)
def test_any_layer_fits_or_says_why_not(layer: dn.Layer, shape: Shape) -> None:
    paper = drawn(layer, shape)
    if isinstance(paper, DoesNotFit):
        assert paper.message
        assert not paper.field or paper.field in type(layer).model_fields
        return
    with torch.device("meta"):
        output = paper.make()(torch.empty(2, *shape))
    assert output.shape == (2, *paper.output_shape)


@pytest.mark.parametrize(
    ("layer", "shape", "field", "message"),
    [
        (layers.Linear(units=3), (1, 8, 8), "", "add a flatten layer before it"),
        (
            layers.Conv(channels=3),
            (64,),
            "",
            "conv takes an image and receives a feature vector of 64",
        ),
        (layers.Pool(), (64,), "", "pool takes an image"),
        (
            layers.Conv(channels=4, groups=2),
            (3, 8, 8),
            "groups",
            "2 groups do not divide the 3 channels",
        ),
        (
            layers.Conv(channels=4, kernel_size=5, dilation=3, padding=1),
            (3, 8, 8),
            "kernel_size",
            "the kernel spans 13 pixels and the image only 10, padding of 1 on each side included",
        ),
        (
            layers.Pool(kernel_size=4),
            (3, 8, 2),
            "kernel_size",
            "the window spans 4 pixels and the image only 2; give",
        ),
    ],
)
def test_what_does_not_fit(layer: dn.Layer, shape: Shape, field: str, message: str) -> None:
    with pytest.raises(DoesNotFit) as raised:
        BLUEPRINTS[layer.kind](layer, shape)
    assert raised.value.field == field
    assert message in raised.value.message


def test_same_padding_is_the_default_of_odd_kernels() -> None:
    for size in (1, 3, 5):
        for dilation in (1, 2):
            layer = layers.Conv(channels=2, kernel_size=size, dilation=dilation)
            assert BLUEPRINTS["conv"](layer, (1, 9, 9)).output_shape == (2, 9, 9)


@pytest.mark.parametrize(
    ("source", "target", "stride"),
    [
        ((8, 9, 9), (16, 9, 9), (1, 1)),
        ((8, 32, 32), (8, 16, 16), (2, 2)),
        ((8, 7, 7), (4, 4, 4), (2, 2)),
        ((8, 9, 6), (8, 3, 6), (3, 1)),
        ((8, 5, 5), (8, 1, 1), (5, 5)),
    ],
)
def test_shortcut_of_an_image(source: Shape, target: Shape, stride: tuple[int, int]) -> None:
    paper = shortcut(source, target)
    assert paper is not None
    assert_true(paper, source)
    module = paper.make()
    assert isinstance(module, nn.Conv2d)
    assert (module.kernel_size, module.stride, module.bias) == ((1, 1), stride, None)
    assert paper.output_shape == target


def test_shortcut_of_a_vector() -> None:
    paper = shortcut((5,), (7,))
    assert paper is not None
    assert_true(paper, (5,))
    assert paper.parameters == 35
    assert shortcut((5,), (5,)) is None


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ((8, 4, 4), (128,), "move the flatten layer behind the block"),
        ((8, 9, 9), (8, 4, 4), "no stride of a 1x1 convolution does"),
        ((8, 4, 4), (8, 6, 6), "no stride of a 1x1 convolution does"),
    ],
)
def test_no_shortcut(source: Shape, target: Shape, message: str) -> None:
    with pytest.raises(DoesNotFit, match="residual branch turns an image of 8 x") as raised:
        shortcut(source, target)
    assert message in raised.value.message
