"""What is known of a data set without reading it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import torch

from dropnorm.results import SequenceSummary, Task
from dropnorm_service.training.data.tokens import Vocabulary


class PinnedFile(NamedTuple):
    """A file as published.

    Attributes:
        name: its name, the last part of its URL.
        size: its size in bytes.
        sha256: its SHA-256 (hex).
    """

    name: str
    size: int
    sha256: str


class Source(Protocol):
    """Where a data set comes from and how its original form is read."""

    @property
    def files(self) -> tuple[PinnedFile, ...]:
        """The files that a mirror serves; none: the data needs no files."""

    def find(self, folder: Path) -> Sequence[Path]:
        """The files in a folder, in the order `parse` wants them; empty when one is missing."""

    def parse(self, paths: Sequence[Path], info: DatasetInfo) -> dict[str, torch.Tensor]:
        """Read `x` and `y`, and of a data set with a test split of its own `test_x` and `test_y`.

        `x` is `[samples, *input_shape]`, uint8 or float32, or int64 where it is tokens; `y` is int64
        `[samples]` in classification, float32 `[samples, outputs]` in regression, and int64
        `[samples, target_length]` where it is tokens, from `BOS` to `EOS`, then `PAD`. Where samples are all
        there is, it is int64 `[samples, 0]`.

        Raises:
            BadData: a file is not what it should be; the message names file and byte.
        """


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """A data set's facts.

    Attributes:
        name: as `data.dataset` names it.
        task: kind of learning problem.
        input_shape: shape of a sample, `[features]` or `[channels, height, width]`.
        outputs: number of classes or of regression targets; 0: samples are all there is.
        samples: samples outside a test split of the data set's own.
        test_samples: samples in that test split; 0: it has none.
        class_names: names of the classes in order; empty in regression.
        vocabulary: of the input, where samples are sequences of tokens; None: they are numbers.
        target_vocabulary: of the target, where that is a sequence too.
        target_length: its tokens, with beginning and end; 0: it is none.
        source: where it comes from.
    """

    name: str
    task: Task
    input_shape: tuple[int, ...]
    outputs: int
    samples: int
    test_samples: int = 0
    class_names: tuple[str, ...] = ()
    vocabulary: Vocabulary | None = None
    target_vocabulary: Vocabulary | None = None
    target_length: int = 0
    source: Source

    @property
    def sequences(self) -> SequenceSummary | None:
        """What is told of the tokens."""
        if self.vocabulary is None:
            return None
        target = self.target_vocabulary
        return SequenceSummary(
            vocabulary=len(self.vocabulary),
            target_vocabulary=len(target) if target else 0,
            target_length=self.target_length,
        )
