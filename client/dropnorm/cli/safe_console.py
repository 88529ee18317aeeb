"""A console that shows what came from others."""

from __future__ import annotations

import re
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

# Besides tabs and line breaks all control characters, and what changes the direction of the text around it.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class SafeConsole(Console):
    """Leaves out the characters by which a text could steer a terminal; styles and colours of its own stay.

    The service refuses such names, and this is for those that it took before it did, and for other services.
    """

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """What there is to show, made safe. The characters have no width, so that a table stays straight."""
        for segment in super().render(renderable, options):
            if segment.control:  # the console's own
                yield segment
            else:
                yield Segment(_UNSAFE.sub("", segment.text), segment.style)
