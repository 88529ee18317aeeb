"""Made-up pairs of sequences: letters to be told backwards, and sums to be told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from string import ascii_lowercase, digits

import torch

from dropnorm_service.training.data.info import DatasetInfo, PinnedFile
from dropnorm_service.training.data.tokens import BOS, EOS, PAD, Vocabulary

LETTERS = Vocabulary(tuple(ascii_lowercase))
SUMS = Vocabulary((*digits, "+"))
REVERSAL_LENGTH, ADDITION_LENGTH = 10, 7
"""Tokens of a source at most."""
_LARGEST = 999

Pair = tuple[str, str]


def reversal(random: Random) -> Pair:
    """One to ten letters, and the same backwards."""
    letters = "".join(random.choices(ascii_lowercase, k=random.randint(1, REVERSAL_LENGTH)))
    return letters, letters[::-1]


def addition(random: Random) -> Pair:
    """The sum of two numbers of up to three digits: `123+45` and `168`."""
    first, second = random.randint(0, _LARGEST), random.randint(0, _LARGEST)
    return f"{first}+{second}", str(first + second)


@dataclass(frozen=True)
class MadeUp:
    """Pairs drawn at random, each source once; the same on every platform.

    Attributes:
        draw: draws a pair.
    """

    draw: Callable[[Random], Pair]
    files: tuple[PinnedFile, ...] = ()

    def find(self, folder: Path) -> Sequence[Path]:
        """Nothing: the data is made."""
        return ()

    def parse(self, paths: Sequence[Path], info: DatasetInfo) -> dict[str, torch.Tensor]:
        """As many pairs as the data set has samples."""
        assert info.vocabulary is not None  # the data set is one of pairs
        assert info.target_vocabulary is not None
        random, pairs = Random(0), dict[str, str]()  # noqa: S311 (no secret)
        while len(pairs) < info.samples:
            source, target = self.draw(random)
            pairs.setdefault(source, target)
        (length,) = info.input_shape
        return {
            "x": _padded(pairs.keys(), info.vocabulary, length),
            "y": _padded(pairs.values(), info.target_vocabulary, info.target_length, ends=True),
        }


def _padded(
    texts: Iterable[str], vocabulary: Vocabulary, length: int, *, ends: bool = False
) -> torch.Tensor:
    """Tokens of texts, int64 `[texts, length]`, padded behind; `ends` adds beginning and end."""
    rows = []
    for text in texts:
        numbers = vocabulary.numbers(text)
        if ends:
            numbers = [BOS, *numbers, EOS]
        rows.append(numbers + [PAD] * (length - len(numbers)))
    return torch.tensor(rows)
