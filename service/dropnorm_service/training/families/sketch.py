"""What families are written with: a network for images, layer by layer, that knows its size as it grows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from dropnorm.spec import ActivationFunction, InvalidSpecError, Problem, Regularization
from dropnorm.spec import layers as spec
from dropnorm_service.training.elements import Element, Meet, Way
from dropnorm_service.training.layers import Meeting, Reshape, Upsampling, describe
from dropnorm_service.training.layout import Frame, check_width
from dropnorm_service.training.placement import placed_dropout, placed_norm, regularized

SMALL = 64
"""An image whose shorter side is below this many pixels is small: stems keep its size."""


@dataclass
class Sketch:
    """Layers in a row.

    Attributes:
        regularization: what goes around each activation.
        path: of the architecture in the spec.
        activation: its non-linearity.
        size: height and width that the last layer leaves, in pixels.
        negative_slope: of a leaky ReLU; None: the usual one.
        prefix: what the names of its layers begin with.
        flat: it has come to feature vectors.
        elements: the layers so far.
    """

    regularization: Regularization
    path: str
    activation: ActivationFunction
    size: tuple[int, int]
    negative_slope: float | None = None
    prefix: str = ""
    flat: bool = False
    elements: list[Element] = field(default_factory=list)

    @classmethod
    def of_images(cls, kind: str, activation: ActivationFunction, frame: Frame) -> Sketch:
        """An empty sketch for the images of a frame.

        Raises:
            InvalidSpecError: its samples are no images.
        """
        path = f"architecture.{kind}"
        if len(frame.input_shape) != 3:
            text = (
                f"{kind} takes images and the data has {describe(frame.input_shape)}; "
                "choose an mlp, or image data"
            )
            raise InvalidSpecError([Problem(path, text)])
        _, height, width = frame.input_shape
        return cls(frame.regularization, path, activation, (height, width))

    @property
    def small(self) -> bool:
        """Whether the image is small where this sketch stands."""
        return min(self.size) < SMALL

    @property
    def normed(self) -> bool:
        """Whether a norm follows each convolution, which then needs no bias."""
        norm = self.regularization.norm
        return norm is not None and norm[1].hidden

    def way(self, block: str, name: str) -> Sketch:
        """An empty sketch of a way that begins here, to be given to the block of that name."""
        return replace(self, prefix=f"{self.prefix}{block}.{name}.", elements=[])

    def add(self, name: str, layer: spec.Layer | Reshape | Upsampling) -> None:
        """Any layer that leaves the image's size or has no further use for it."""
        self.elements.append(Element(f"{self.prefix}{name}", layer, self.path))

    def conv(
        self, name: str, channels: int, kernel: int = 3, *, stride: int = 1, padding: int | None = None,
        bias: bool | None = None,
    ) -> None:  # fmt: skip
        """A convolution; by default it keeps the size at stride 1 and has a bias where no norm follows.

        Raises:
            InvalidSpecError: it is wider than any layer may be.
        """
        self.check_width(channels)
        layer = spec.Conv(
            channels=channels,
            kernel_size=kernel,
            stride=stride,
            padding=padding,
            bias=not self.normed if bias is None else bias,
        )
        self.add(name, layer)
        around = kernel // 2 if padding is None else padding
        self._slide(kernel, stride, around)

    def check_width(self, width: int) -> None:
        """That a layer is no wider than any may be.

        Raises:
            InvalidSpecError: it is.
        """
        check_width(width, self.path)

    def pool(
        self, name: str, kernel: int, stride: int, padding: int = 0, mode: str = "max"
    ) -> None:
        """Pooling, left out where the image has shrunk to one pixel or below the window."""
        if min(self.size) == 1 or min(self.size) + 2 * padding < kernel:
            return
        layer = spec.Pool.model_validate(
            {"mode": mode, "kernel_size": kernel, "stride": stride, "padding": padding}
        )
        self.add(name, layer)
        self._slide(kernel, stride, padding)

    def average(self, name: str) -> None:
        """The mean over the image, as a feature vector, with dropout as after a hidden layer."""
        self.add(f"{name}.average", spec.Pool(mode="global_average"))
        self.flatten(name)
        prefix = f"{self.prefix}{name}."
        self.elements += placed_dropout(self.regularization.dropout, "hidden", prefix)

    def flatten(self, name: str) -> None:
        """Images become feature vectors."""
        self.add(f"{name}.flatten", spec.Flatten())
        self.flat = True

    def classify(self, widths: Sequence[int], name: str = "classifier") -> None:
        """Flatten, then linear layers with dropout and without norm."""
        self.flatten(name)
        for index, width in enumerate(widths):
            self.linear(f"{name}.{index}.linear", width)
            self.activate(f"{name}.{index}", norm=False)

    def linear(self, name: str, units: int) -> None:
        """A linear layer."""
        self.add(name, spec.Linear(units=units))

    def activate(self, name: str, *, norm: bool = True) -> None:
        """The activation, with dropout and, unless it is not wanted, norm around it."""
        prefix = f"{self.prefix}{name}."
        layer = spec.Activation(function=self.activation, negative_slope=self.negative_slope)
        activation = Element(f"{prefix}activation", layer, self.path)
        around = self.regularization
        if not norm:
            around = around.without_norm()
        self.elements += regularized(around, "hidden", prefix, activation, conv=not self.flat)

    def norm(self, name: str, *, zero: bool = False) -> None:
        """A norm by itself. `zero` starts its gamma at zero, or where it has none, what stands before it."""
        found = placed_norm(self.regularization, "hidden", f"{self.prefix}{name}.")
        norm = self.regularization.norm
        learns = bool(found) and norm is not None and norm[1].affine
        if zero and not learns:
            self.elements[-1] = replace(self.elements[-1], zero=True)
        self.elements += [replace(each, zero=zero and learns) for each in found]

    def unit(
        self,
        name: str,
        channels: int,
        kernel: int = 3,
        *,
        stride: int = 1,
        padding: int | None = None,
    ) -> None:
        """A convolution and its activation."""
        self.conv(f"{name}.conv", channels, kernel, stride=stride, padding=padding)
        self.activate(name)

    def block(self, name: str, meeting: Meeting, ways: Mapping[str, Sketch | None]) -> None:
        """Ways that begin here and meet; None: the input itself. The first way's size is the block's."""
        parts = [Way(label, tuple(way.elements) if way else ()) for label, way in ways.items()]
        self.elements.append(
            Element(f"{self.prefix}{name}", Meet(meeting), self.path, tuple(parts))
        )
        if meeting != "side":
            self.size = next((way.size for way in ways.values() if way), self.size)

    def finish(self, outputs: int) -> list[Element]:
        """All layers, with the output layer, which only the data asks for."""
        return [*self.elements, Element("output.linear", spec.Linear(units=outputs))]

    def _slide(self, kernel: int, stride: int, padding: int) -> None:
        height, width = ((side + 2 * padding - kernel) // stride + 1 for side in self.size)
        self.size = (height, width)
