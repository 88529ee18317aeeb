"""What an architecture comes to before shapes are known: parts of layers in a row, and what joins them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from dropnorm.results import SequenceSummary
from dropnorm.spec import InvalidSpecError, Problem, Regularization
from dropnorm.spec.layers import MAX_WIDTH
from dropnorm_service.training.elements import Element
from dropnorm_service.training.layers import Shape
from dropnorm_service.training.network import FeedForward, Network


class Frame(NamedTuple):
    """What a network is fitted into.

    Attributes:
        regularization: of the spec, which every architecture takes alike.
        input_shape: shape of one sample.
        outputs: number of classes, regression targets or values to be restored.
        sequences: what is known of tokens, where samples are made of them.
    """

    regularization: Regularization
    input_shape: Shape
    outputs: int
    sequences: SequenceSummary | None = None


class Input(NamedTuple):
    """One argument of a network's forward pass: shape of one sample, and type."""

    shape: Shape
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True)
class Part:
    """Layers in a row.

    Attributes:
        elements: the layers; in a network of several parts their names begin with the part's.
        input_shape: shape of one sample that enters them.
        output_shape: shape that they must leave.
    """

    elements: tuple[Element, ...]
    input_shape: Shape
    output_shape: Shape


@dataclass(frozen=True)
class Layout:
    """A network before its shapes are checked.

    Attributes:
        parts: in order of execution; a feed-forward network is one.
        inputs: what its forward pass takes.
        network: makes the whole of the modules, nested after their names, and of their fields.
    """

    parts: tuple[Part, ...]
    inputs: tuple[Input, ...]
    network: Callable[[nn.Sequential, Mapping[str, str]], Network] = FeedForward


def check_width(width: int, path: str) -> None:
    """That a layer is no wider than any may be.

    Args:
        width: its channels or units, or those of a layer that is made of several.
        path: of what asks for it.

    Raises:
        InvalidSpecError: it is.
    """
    if width > MAX_WIDTH:
        text = (
            f"this comes to a layer of {width:,} channels or units; at most {MAX_WIDTH:,} are accepted: give a "
            "smaller width, fewer stages, or smaller samples"
        )
        raise InvalidSpecError([Problem(path, text)])


def pairs(frame: Frame, kind: str) -> SequenceSummary:
    """What is known of a frame's tokens.

    Raises:
        InvalidSpecError: the data has no targets that are sequences.
    """
    sequences = frame.sequences
    assert sequences is not None  # whoever takes tokens has been given some
    if not sequences.target_length:
        text = f"{kind} makes one sequence of another and the data has no pairs; choose bert, or other data"
        raise InvalidSpecError([Problem(f"architecture.{kind}", text)])
    return sequences
