"""A text that every Python comes with, as sequences of characters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dropnorm_service.training.data.info import DatasetInfo, PinnedFile
from dropnorm_service.training.data.tokens import BOS, Vocabulary
from dropnorm_service.training.errors import BadData

CHARACTERS = Vocabulary(("\n", *map(chr, range(0x20, 0x7F))))
"""Line feed and the printable characters of ASCII; whatever else stands in a text is unknown."""


@dataclass(frozen=True)
class PythonTopics:
    """The help pages of Python's own language reference, `pydoc_data.topics`, in the order of their names.

    Cut into pieces that do not overlap, as many as the data set has samples; what is left is not used. The text
    is that of the Python which runs this, so the data's digest differs between its versions.
    """

    files: tuple[PinnedFile, ...] = ()

    def find(self, folder: Path) -> Sequence[Path]:
        """Nothing: the data is inside Python."""
        return ()

    def parse(self, paths: Sequence[Path], info: DatasetInfo) -> dict[str, torch.Tensor]:
        """`x` is `BOS` and the characters of a piece; `y` is empty, as nothing is told of it.

        Raises:
            BadData: this Python's text is too short.
        """
        from pydoc_data.topics import topics

        text = "\n\n".join(topics[name] for name in sorted(topics))
        (length,) = info.input_shape
        needed = info.samples * (length - 1)
        if len(text) < needed:
            raise BadData(
                f"the help pages of this Python have {len(text)} characters and {info.name} needs {needed}; "
                "use another Python, or another data set"
            )
        pieces = torch.tensor(CHARACTERS.numbers(text[:needed])).view(info.samples, -1)
        begin = torch.full((info.samples, 1), BOS, dtype=torch.int64)
        return {
            "x": torch.cat([begin, pieces], dim=1),
            "y": torch.empty(info.samples, 0, dtype=torch.int64),
        }
