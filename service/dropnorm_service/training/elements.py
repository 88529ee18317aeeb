"""What every architecture is lowered to: layers in a row, and blocks of several ways."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from dropnorm.spec import layers as spec
from dropnorm_service.training.layers import Attend, InnerLayer, Meeting, Upsampling


@dataclass(frozen=True)
class Meet:
    """What ends the ways of a block.

    Attributes:
        meeting: how they meet.
        project: bring a way without layers to the shape of the others.
    """

    meeting: Meeting
    project: bool = False


@dataclass(frozen=True)
class Way:
    """One way through a block.

    Attributes:
        name: its last name in the model.
        elements: its layers; none: the input itself goes on.
    """

    name: str
    elements: tuple[Element, ...] = ()


@dataclass(frozen=True)
class Element:
    """One layer of a network, or a block of several ways.

    Attributes:
        name: dotted name of its module in the model, `hidden.0.linear`.
        layer: what it is; of a block, how its ways meet.
        field: path of the spec's field that asked for it; empty: the data did.
        ways: a block's ways.
        following: the activation that its output goes into, whose gain its weights start with.
        zero: its weights start at zero, so that its block starts as the identity.
        rate_field: path of the regularization's rate that its module drops by, where another field asked for
            the layer as such; empty: none.
    """

    name: str
    layer: spec.Layer | InnerLayer | Meet | Attend
    field: str = ""
    ways: tuple[Way, ...] = ()
    following: spec.Activation | None = None
    zero: bool = False
    rate_field: str = ""

    @property
    def dropped_by(self) -> str:
        """Path of what its module drops by, if it drops anything."""
        if self.rate_field:
            return self.rate_field
        return (
            f"{self.field}.dropconnect_rate" if isinstance(self.layer, spec.Linear) else self.field
        )

    def setting(self, name: str) -> str:
        """Path of one of the layer's settings, in the list or in the regularization that placed it."""
        if not self.field.startswith("regularization."):
            return f"{self.field}.{name}"
        # A placed dropout's field is its rate already; a placed norm's says where it stands.
        return self.field if name == "rate" else f"{self.field.rpartition('.')[0]}.{name}"


def with_following(
    elements: Iterable[Element], following: spec.Activation | None = None
) -> tuple[Element, ...]:
    """The same elements, each knowing the activation that its output goes into.

    All ways of a block go into whatever follows it, and what stands before the block goes into the
    first of them that has layers.
    """
    reached: list[Element] = []
    for element in reversed(tuple(elements)):
        ways = tuple(
            replace(way, elements=with_following(way.elements, following)) for way in element.ways
        )
        element = replace(element, ways=ways, following=following)
        reached.append(element)
        following = _entered(element)
    return tuple(reversed(reached))


def _entered(element: Element) -> spec.Activation | None:
    """The activation that an element's input goes into before any weights."""
    layer = element.layer
    if isinstance(layer, spec.Activation):
        return layer
    if isinstance(layer, spec.Linear | spec.Conv | Upsampling):
        return None
    within = next((way.elements for way in element.ways if way.elements), ())
    return _entered(within[0]) if within else element.following
