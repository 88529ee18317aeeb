"""Sequences of tokens: numbers for words or characters, and the few that mean something to every model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

PAD, BOS, EOS, UNKNOWN, MASK = range(5)
SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>", "<mask>")
"""Padding behind a sequence's end, its beginning, its end, what the vocabulary lacks, what is hidden."""


@dataclass(frozen=True)
class Vocabulary:
    """Tokens by number; the special ones come first.

    Attributes:
        words: the other tokens in order; number `len(SPECIAL)` is the first of them.
        separator: what stands between two tokens in a text: nothing, or a space.
    """

    words: tuple[str, ...]
    separator: str = ""

    def __len__(self) -> int:
        return len(SPECIAL) + len(self.words)

    def numbers(self, text: str) -> list[int]:
        """The tokens of a text; `UNKNOWN` for what the vocabulary lacks."""
        parts = text.split(self.separator) if self.separator else text
        return [self._by_word.get(part, UNKNOWN) for part in parts]

    @cached_property
    def _by_word(self) -> Mapping[str, int]:
        return {word: len(SPECIAL) + index for index, word in enumerate(self.words)}

    def text(self, numbers: list[int]) -> str:
        """The text of a sequence up to its end; padding and the beginning are left out."""
        if EOS in numbers:
            numbers = numbers[: numbers.index(EOS)]
        names = (*SPECIAL, *self.words)
        return self.separator.join(names[each] for each in numbers if each not in (PAD, BOS))
