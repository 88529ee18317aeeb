"""Texts in UTF-8 as sequences of tokens: characters, or words between white space.

A mark of the byte order at the beginning is no text. Words of more than 200 characters are unknown ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dropnorm.datasets.arrays import targets_of
from dropnorm.datasets.bundle import Bundle, manifest_of
from dropnorm.datasets.errors import InvalidData, InvalidRow
from dropnorm.datasets.limits import MAX_NAME
from dropnorm.datasets.values import numpy_for

if TYPE_CHECKING:
    from dropnorm.datasets.arrays import Task
    from dropnorm.datasets.bundle import Array

Tokens = Literal["characters", "words"]
"""What a text is made of."""

# The numbers that the service gives to the tokens that mean something to every model.
_PAD, _BOS, _EOS, _UNKNOWN, _FIRST = 0, 1, 2, 3, 5

MAX_WORDS = 50_000
"""Words of a vocabulary; the rarer ones are unknown."""
MAX_TOKENS = 4096
"""Tokens of a sequence."""


def from_text(path: Path, *, tokens: Tokens, length: int) -> Bundle:
    """A text cut into pieces of `length` tokens that do not overlap; what is left is not used.

    Raises:
        InvalidData: it is not UTF-8, or too short.
    """
    import numpy

    _check_length(length)
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


def from_pairs(source: Path, target: Path, *, tokens: Tokens) -> Bundle:
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


def from_labelled(
    texts: Any,
    y: Any,
    *,
    tokens: Tokens,
    length: int,
    test: tuple[Any, Any] | None = None,
    task: Task | None = None,
    class_names: Sequence[str] | None = None,
    called: tuple[str, str] = ("X", "test X"),
    targets_called: tuple[str, str] = ("y", "test y"),
) -> Bundle:
    """Texts with a class or numbers each, what a classification head learns from.

    A sample is a beginning and the first `length - 1` tokens of its text, padded to the longest. The vocabulary is that
    of the texts without the test split.

    Args:
        texts: a text for each sample: a list, an array or a pandas series of text.
        y: targets, see `arrays.from_arrays`.
        tokens: what a token is.
        length: tokens of a sample at most, 2 to 4096.
        test: texts and targets of a test split of its own.
        task: overrides what the type of `y` says.
        class_names: as `from_arrays` has them.
        called: what sentences call the texts and those of the test split.
        targets_called: likewise the targets.

    Raises:
        InvalidData: a text is empty or missing, or a target is of no use; its row is named.
    """
    import numpy

    _check_length(length)
    given = {"x": (called[0], texts)}
    if test is not None:
        given["test_x"] = called[1], test[0]
    parts = {key: _split(name, each, tokens) for key, (name, each) in given.items()}
    words = _vocabulary(called[0], parts["x"])
    arrays = {}
    longest = max(len(each) for side in parts.values() for each in side) + 1
    for key, side in parts.items():
        rows = numpy.full((len(side), min(length, longest)), _PAD, numpy.int64)
        rows[:, 0] = _BOS
        for row, each in zip(rows, side, strict=True):
            shown = each[: len(row) - 1]
            row[1 : len(shown) + 1] = _numbers(shown, words)
        arrays[key] = rows
    targets = targets_of(y, test, task=task, class_names=class_names, called=targets_called)
    manifest = manifest_of(
        task=targets.task,
        class_names=targets.class_names,
        vocabulary=words,
        separator=_separator(tokens),
    )
    return Bundle(manifest, {**arrays, **targets.arrays})


def _split(name: str, texts: Any, tokens: Tokens) -> list[Sequence[str]]:
    """The tokens of each text."""
    values = texts.tolist() if hasattr(texts, "tolist") else list(texts)
    if not values:
        raise InvalidData(f"{name} is empty; give a text for each sample.")
    sides = []
    for row, each in enumerate(values):
        if not isinstance(each, str) or not each.strip():
            told = "an empty text" if isinstance(each, str) else f"{each!r}, which is no text"
            raise InvalidRow(f"{name}, ", row, f" is {told}; give one, or drop the sample.")
        sides.append(_parts(each, tokens, lines=True))
    return sides


def _check_length(length: int) -> None:
    if not 2 <= length <= MAX_TOKENS:
        raise InvalidData(f"A piece has 2 to {MAX_TOKENS} tokens, not {length}.")


def _separator(tokens: str) -> Literal["", " "]:
    return " " if tokens == "words" else ""


def _parts(text: str, tokens: str, *, lines: bool) -> Sequence[str]:
    if tokens == "words":
        return text.split()
    return text.strip() if lines else text


def _vocabulary(what: object, sides: Iterable[Iterable[str]]) -> tuple[str, ...]:
    """The most frequent tokens, in alphabetical order.

    Raises:
        InvalidData: there is none that is short enough.
    """
    counts = Counter(part for parts in sides for part in parts)
    frequent = sorted(counts, key=lambda part: (-counts[part], part))[:MAX_WORDS]
    words = tuple(sorted(part for part in frequent if len(part) <= MAX_NAME))
    if not words:
        raise InvalidData(
            f"{what} has no word of {MAX_NAME} characters or fewer; give it spaces, or take characters for tokens."
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
