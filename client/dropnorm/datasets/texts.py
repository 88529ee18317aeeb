"""Texts in UTF-8 as sequences of tokens: characters, or words between white space.

A mark of the byte order at the beginning is no text. Words of more than 200 characters are unknown ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dropnorm.datasets.bundle import Bundle, manifest_of
from dropnorm.datasets.errors import InvalidData
from dropnorm.datasets.limits import MAX_NAME
from dropnorm.datasets.values import numpy_for

if TYPE_CHECKING:
    from dropnorm.datasets.bundle import Array

# The numbers that the service gives to the tokens that mean something to every model.
_PAD, _BOS, _EOS, _UNKNOWN, _FIRST = 0, 1, 2, 3, 5

MAX_WORDS = 50_000
"""Words of a vocabulary; the rarer ones are unknown."""
MAX_TOKENS = 4096
"""Tokens of a sequence."""


def from_text(path: Path, *, tokens: Literal["characters", "words"], length: int) -> Bundle:
    """A text cut into pieces of `length` tokens that do not overlap; what is left is not used.

    Raises:
        InvalidData: it is not UTF-8, or too short.
    """
    import numpy

    if not 2 <= length <= MAX_TOKENS:
        raise InvalidData(f"A piece has 2 to {MAX_TOKENS} tokens, not {length}.")
    parts = _parts(_read(path), tokens, lines=False)
    pieces = len(parts) // (length - 1)
    if pieces < 3:
        raise InvalidData(f"{path} has {len(parts)} tokens, too few for three pieces of {length}.")
    words = _vocabulary(path, [parts])
    numbers = _numbers(parts, words)[: pieces * (length - 1)].reshape(pieces, length - 1)
    x = numpy.concatenate([numpy.full((pieces, 1), _BOS), numbers], axis=1).astype(numpy.int64)
    manifest = manifest_of(
        task="masked_language_modelling", vocabulary=words, separator=_separator(tokens)
    )
    return Bundle(manifest, {"x": x, "y": numpy.empty((pieces, 0), numpy.int64)})


def from_pairs(source: Path, target: Path, *, tokens: Literal["characters", "words"]) -> Bundle:
    """Lines of one text and what answers each in another; every line is a sample.

    Raises:
        InvalidData: a file is not UTF-8, a line is empty or too long, or there are not as many lines in both.
    """
    sides = []
    for path in (source, target):
        lines = _read(path).removesuffix("\n").split("\n")  # no other end of a line counts
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                raise InvalidData(f"{path}, line {number} is empty; every line is a sample.")
        sides.append([_parts(line, tokens, lines=True) for line in lines])
    if len(sides[0]) != len(sides[1]):
        raise InvalidData(
            f"{source} has {len(sides[0])} lines and {target} has {len(sides[1])}; give as many."
        )
    for path, side in zip((source, target), sides, strict=True):
        long = next((n for n, each in enumerate(side, start=1) if len(each) > MAX_TOKENS - 2), None)
        if long is not None:
            raise InvalidData(
                f"{path}, line {long} has more than {MAX_TOKENS - 2} tokens; shorten it."
            )
    vocabularies = [
        _vocabulary(path, side) for path, side in zip((source, target), sides, strict=True)
    ]
    x, y = (_padded(side, words) for side, words in zip(sides, vocabularies, strict=True))
    manifest = manifest_of(
        task="sequence_to_sequence",
        vocabulary=vocabularies[0],
        target_vocabulary=vocabularies[1],
        separator=_separator(tokens),
    )
    return Bundle(manifest, {"x": x[:, 1:], "y": y})


def _separator(tokens: str) -> Literal["", " "]:
    return " " if tokens == "words" else ""


def _parts(text: str, tokens: str, *, lines: bool) -> Sequence[str]:
    if tokens == "words":
        return text.split()
    return text.strip() if lines else text


def _vocabulary(path: Path, sides: Iterable[Iterable[str]]) -> tuple[str, ...]:
    """The most frequent tokens, in alphabetical order.

    Raises:
        InvalidData: there is none that is short enough.
    """
    counts = Counter(part for parts in sides for part in parts)
    frequent = sorted(counts, key=lambda part: (-counts[part], part))[:MAX_WORDS]
    words = tuple(sorted(part for part in frequent if len(part) <= MAX_NAME))
    if not words:
        raise InvalidData(
            f"{path} has no word of {MAX_NAME} characters or fewer; give it spaces, or take characters for tokens."
        )
    return words


def _numbers(parts: Iterable[str], words: Sequence[str]) -> Array:
    import numpy

    by_word = {word: _FIRST + index for index, word in enumerate(words)}
    return numpy.array([by_word.get(part, _UNKNOWN) for part in parts], numpy.int64)


def _padded(side: Sequence[Sequence[str]], words: Sequence[str]) -> Array:
    """Begin, tokens, end, and padding behind it: int64 `[samples, longest + 2]`."""
    import numpy

    longest = max(map(len, side), default=0)
    rows = numpy.full((len(side), longest + 2), _PAD, numpy.int64)
    rows[:, 0] = _BOS
    for row, parts in zip(rows, side, strict=True):
        row[1 : len(parts) + 1] = _numbers(parts, words)
        row[len(parts) + 1] = _EOS
    return rows


def _read(path: Path) -> str:
    numpy_for("reading texts")  # said now and not after a long text is read
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise not_utf8(path) from error


def not_utf8(path: Path) -> InvalidData:
    """The error for a file that is not UTF-8, with the byte and the line where it ceases to be."""
    content, byte = path.read_bytes(), 0
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = error.start
    line = content.count(b"\n", 0, byte) + 1
    return InvalidData(f"{path} is not UTF-8 at byte {byte}, line {line}; save it as UTF-8.")
