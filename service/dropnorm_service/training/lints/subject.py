"""What a lint rule looks at, and how it says what it found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from dropnorm.results import DatasetSummary, Lint, MemoryEstimate
from dropnorm.spec import TrainingSpec
from dropnorm_service.training.design import Design
from dropnorm_service.training.timetable import Timetable

_NAMED = 3


@dataclass(frozen=True)
class Subject:
    """A spec, its network on paper, its data, and what they come to.

    Attributes:
        training: the spec.
        paper: its network.
        dataset: its data.
        timetable: how the training split is cut into batches.
        memory: what a training step takes.
        memory_limit: memory of the device in bytes; None: unknown.
    """

    training: TrainingSpec
    paper: Design
    dataset: DatasetSummary
    timetable: Timetable
    memory: MemoryEstimate
    memory_limit: int | None = None


Rule = Callable[[Subject], Iterator[Lint]]


def over_fields(code: str, fields: Iterable[str], message: str) -> Iterator[Lint]:
    """One lint however many fields it is about: at the first of them, and it names some of the others.

    Empty fields, which the data asked for and nobody can change, do not count.
    """
    named = list(dict.fromkeys(filter(None, fields)))
    if not named:
        return
    first, *others = named
    if others:
        more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
        message += f"; so too {', '.join(others[:_NAMED])}{more}"
    yield Lint(code=code, field=first, message=message)
