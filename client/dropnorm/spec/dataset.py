"""What a data set's file says of itself: the JSON under `dropnorm` in the metadata of a safetensors file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from pydantic import Field

from dropnorm.spec._base import ONE_LINE, PRINTABLE, Problem, SpecModel, text_of

MAX_NAMES = 1_000_000
MAX_NAMES_SIZE = 2**20
"""What the names of a data set's classes and features may take together, see `names_size`."""
_AROUND_A_NAME = 3  # bytes in a message, at most

Names = Annotated[
    tuple[Annotated[str, text_of(rf"^{PRINTABLE}+$", ONE_LINE, min_length=1, max_length=200)], ...],
    Field(max_length=MAX_NAMES, fail_fast=True),
]
Tokens = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=200)], ...],
    Field(max_length=MAX_NAMES, fail_fast=True),
]
"""A token may be a line break."""


class DatasetManifest(SpecModel):
    """The facts of a data set that its tensors do not tell."""

    format: Literal[1] = 1
    """Version of this form."""
    task: Literal[
        "classification", "regression", "sequence_to_sequence", "masked_language_modelling"
    ]
    """What it is for."""
    class_names: Names = ()
    """Name of each class in order; in classification. With `feature_names` at most 1 MiB, see `names_size`."""
    feature_names: Names = ()
    """Name of each feature of a table; empty where they have none."""
    vocabulary: Tokens = ()
    """Tokens of the input besides the special ones, number 5 first; empty: samples are numbers."""
    target_vocabulary: Tokens = ()
    """Tokens of the target, likewise; in sequence_to_sequence."""
    separator: Literal["", " "] = ""
    """What stands between two tokens in a text."""

    def _rules(self) -> Iterator[Problem]:
        if (self.task == "classification") != bool(self.class_names):
            yield Problem("class_names", "classification names its classes, and nothing else does")
        for name in ("class_names", "vocabulary", "target_vocabulary"):
            given = getattr(self, name)
            if len(set(given)) != len(given):
                twice = next(each for each, count in Counter(given).items() if count > 1)
                yield Problem(name, f"{twice!r} stands there twice; give each a name of its own")
        if (size := names_size(self.class_names, self.feature_names)) > MAX_NAMES_SIZE:
            field = max(("class_names", "feature_names"), key=lambda name: len(getattr(self, name)))
            yield Problem(
                field,
                f"the names of classes and features take {size:,} bytes with 3 more for each, and {MAX_NAMES_SIZE:,} "
                "are allowed; give shorter ones, or fewer",
            )
        tokens = self.task in ("sequence_to_sequence", "masked_language_modelling")
        if tokens and not self.vocabulary:
            yield Problem("vocabulary", f"{self.task} is of tokens; name them")
        if (self.task == "sequence_to_sequence") != bool(self.target_vocabulary):
            yield Problem(
                "target_vocabulary", "sequence_to_sequence names its targets' tokens, others do not"
            )


def names_size(*groups: Sequence[str]) -> int:
    """Bytes that names take where a data set is shown: those of their UTF-8, and 3 for each."""
    return sum(len(name.encode()) + _AROUND_A_NAME for names in groups for name in names)
