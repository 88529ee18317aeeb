"""Values chosen before training: the largest batch that fits, and how choices take their place in a spec."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

from dropnorm.results import AutoOutcome, DatasetSummary, LogLine, Warned
from dropnorm.spec import InvalidSpecError, Optimization, Problem, TrainingSpec
from dropnorm_service.training.checks import check
from dropnorm_service.training.data import SplitData
from dropnorm_service.training.design import Design
from dropnorm_service.training.memory import StepMemory
from dropnorm_service.training.objectives import Objective
from dropnorm_service.training.range_test import choose_rate, range_test
from dropnorm_service.training.reporting import EventSink
from dropnorm_service.training.state import TrainingState


def with_batch_size(
    training: TrainingSpec, dataset: DatasetSummary, memory: int | None
) -> tuple[TrainingSpec, Design]:
    """The spec with the largest batch size that fits, if it is to be found, and the network of the spec.

    A pure function: the planner and the worker come to the same. Where nothing fits it is the least that
    is tried, for the plan to refuse.

    Args:
        training: the spec.
        dataset: its data.
        memory: of the device, in bytes; None: without limit.

    Raises:
        InvalidSpecError: the spec does not fit its data, see `check`, whatever the batch size.
    """
    paper, optimization = check(training, dataset), training.optimization
    if optimization.auto_batch_size is None:
        return training, paper
    settings, samples = optimization.auto_batch_size, dataset.train_samples
    most = min(settings.max_size, samples)
    sizes = _tried(optimization.batch_size, samples)
    fitting = len(sizes)
    if memory is not None:
        step = StepMemory(training, paper, dataset)
        limit = memory * settings.memory_share
        fitting = max(bisect_right(sizes, limit, key=lambda size: step.of(size).total), 1)
    allowed = [size for size in sizes[:fitting] if size <= most] or [most]
    refused: list[Problem] = []
    for size in reversed(allowed):
        found = settled(training, AutoOutcome(batch_size=size))
        try:
            return found, check(found, dataset)
        except InvalidSpecError as error:
            refused = refused or list(error.problems)
    larger = any(_passes(training, dataset, size) for size in sizes[:fitting] if size > most)
    raise InvalidSpecError([_of_automatic(each, limited=larger) for each in refused])


def _passes(training: TrainingSpec, dataset: DatasetSummary, size: int) -> bool:
    try:
        check(settled(training, AutoOutcome(batch_size=size)), dataset)
    except InvalidSpecError:
        return False
    return True


def _of_automatic(problem: Problem, *, limited: bool) -> Problem:
    """What is wrong with the largest size that was tried, of which nobody asked for."""
    if problem.field != "optimization.batch_size":
        return problem
    field, rest = "optimization.auto_batch_size", "every smaller one that is tried is no better"
    if limited:
        field, rest = f"{field}.max_size", "larger ones are not allowed by max_size; give more"
    return Problem(field, f"{problem.message}; {rest}")


def _tried(first: int, most: int) -> list[int]:
    """What comes of `first` by doubling and halving, rising, up to `most` and down to two samples, of which
    a batch norm can take a variance."""
    halved = {first >> times for times in range(first.bit_length())}
    doubled = {first << times for times in range(most.bit_length())}
    return sorted(size for size in halved | doubled if 2 <= size <= most) or [most]


def settled(training: TrainingSpec, outcome: AutoOutcome | None) -> TrainingSpec:
    """The spec with what was chosen in its place."""
    if outcome is None:
        return training
    optimization = training.optimization
    changes: dict[str, object] = {}
    if outcome.batch_size is not None:
        changes |= {"batch_size": outcome.batch_size, "auto_batch_size": None}
    if outcome.learning_rate is not None:
        rate = {"lr": outcome.learning_rate}
        optimizer = optimization.optimizer.model_copy(update=rate)
        changes |= {"optimizer": optimizer, "auto_learning_rate": None}
    return training.model_copy(update={"optimization": optimization.model_copy(update=changes)})


def tune(
    spec: TrainingSpec,
    data: SplitData,
    paper: Design,
    state: TrainingState,
    objective: Objective,
    *,
    batch_size: int | None,
    on_event: EventSink,
    between_steps: Callable[[], None],
) -> AutoOutcome:
    """Find the automatic values, and tell of them. A training that is stopped meanwhile finds them anew.

    Args:
        spec: with its batch size found.
        data: what is trained on.
        paper: the network's layers.
        state: the start of the training, left as it is.
        objective: gives the loss.
        batch_size: what was found; None: it was not to be found.
        on_event: takes what was found.
        between_steps: called after each step; what it raises ends the search.
    """
    if batch_size is not None:
        on_event(LogLine(message=f"batch size {batch_size}: the largest that fits into memory"))
    if spec.optimization.auto_learning_rate is None:
        return AutoOutcome(batch_size=batch_size)

    points = range_test(spec, data, paper, state, objective, between_steps)
    rate = choose_rate(points)
    tested = f"a range test from {points[0].learning_rate:.3g} to {points[-1].learning_rate:.3g}"
    if rate is None:
        text = (
            f"the loss falls nowhere by more than batches differ in {tested}; training goes on with the optimizer's "
            "own rate"
        )
        field = "optimization.auto_learning_rate"
        on_event(Warned(code="NO_LEARNING_RATE_FOUND", field=field, message=text))
    else:
        on_event(LogLine(message=f"learning rate {rate:.4g}: found by {tested}"))
    return AutoOutcome(learning_rate=rate, range_test=points, batch_size=batch_size)


def automatic(optimization: Optimization) -> bool:
    """Whether anything is to be chosen before training."""
    return bool(optimization.auto_learning_rate or optimization.auto_batch_size)
