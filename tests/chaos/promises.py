"""After the chaos: every promise, checked on what the service, MLflow and the disk hold. Finds all that is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from tests.chaos.specs import Numbers, numbers
from tests.chaos.stories import KEY, Story, outcome_is_explained

import dropnorm as dn
from dropnorm.results import EpochCompleted, Event, State, StateChanged, Tracked
from dropnorm_service.jobs.ports import CHECKPOINTS, MODEL
from dropnorm_service.jobs.states import MOVES


@dataclass
class Findings:
    """What is wrong."""

    lost: list[str] = field(default_factory=list)
    """Jobs that were accepted and are not there."""
    doubled: list[str] = field(default_factory=list)
    """Jobs that nobody was told of, and further ones of one request."""
    stuck: list[str] = field(default_factory=list)
    """Jobs that did not end."""
    broken: list[str] = field(default_factory=list)
    """Every other promise that does not hold."""

    @property
    def none(self) -> bool:
        return not (self.lost or self.doubled or self.stuck or self.broken)

    def lines(self) -> Sequence[str]:
        """Each, with its kind."""
        kinds = {"lost": self.lost, "doubled": self.doubled, "stuck": self.stuck, "": self.broken}
        return [f"{kind}: {each}" if kind else each for kind, all in kinds.items() for each in all]


async def check_jobs(
    stories: Sequence[Story],
    client: dn.AsyncClient,
    references: Mapping[str, Numbers],
    findings: Findings,
) -> Mapping[str, Sequence[Event]]:
    """Compare what clients were told with what the service holds; the journals of all jobs."""
    jobs = {job.name: job async for job in client.jobs(page_size=1000)}
    wanted = {story.name: story for story in stories if not story.deleted}
    findings.broken += [f"{story.name}: {each}" for story in stories for each in story.wrong]
    findings.lost += [name or "a job never accepted" for name in wanted if name not in jobs]
    by_story = Counter(job.snapshot.labels[KEY] for job in jobs.values())
    findings.doubled += [name for name in jobs if name not in wanted]
    findings.doubled += [f"story {number}" for number, count in by_story.items() if count > 1]
    journals = {}
    for name, job in jobs.items():
        if name not in wanted:
            continue
        await job.refresh()
        state = job.snapshot.state
        if not state.terminal:
            findings.stuck.append(f"{name} is {state.name}")
            continue
        events = journals[name] = [event async for event in job.watch()]
        findings.broken += [
            f"{name} ({wanted[name].spec}): {each}"
            for each in _wrong(wanted[name], job.snapshot, events, references)
        ]
    return journals


def _wrong(
    story: Story,
    job: dn.TrainingJob,
    events: Sequence[Event],
    references: Mapping[str, Numbers],
) -> Iterator[str]:
    if not outcome_is_explained(story, job.state):
        yield f"{job.state.name} after {sorted(story.asked)}: {job.error}"
    yield from _wrong_journal(events)
    if job.last_sequence != len(events):
        yield f"its row knows {job.last_sequence} events, its journal has {len(events)}"
    if story.seen is not None and list(story.seen) != list(events[: len(story.seen)]):
        yield "its watcher was told another story than its journal tells"
    if story.seen is not None and not _ends(story.seen):
        yield "its watcher was let go before the end"
    if job.state is State.SUCCEEDED:
        if job.evaluation is None:
            yield "it succeeded without an evaluation"
        elif {each.epoch for each in job.evaluation.history} != epochs_done(events):
            yield "its journal and its evaluation have different epochs"
        elif numbers(job.evaluation) != references[story.spec]:
            yield "its evaluation is not that of the undisturbed training"


def _wrong_journal(events: Sequence[Event]) -> Iterator[str]:
    if [event.sequence for event in events] != list(range(1, len(events) + 1)):
        yield "its journal has a gap or a repeat"
    states = [event.payload.state for event in events if isinstance(event.payload, StateChanged)]
    yield from (
        f"it moved from {before.name} to {after.name}"
        for before, after in pairwise(states)
        if after not in MOVES[before]
    )
    attempts = [event.attempt for event in events]
    if attempts != sorted(attempts):
        yield "its attempts are out of order"
    for attempt in set(attempts):
        epochs = [each.metrics.epoch for each in _epochs(events, attempt)]
        if epochs and epochs != list(range(epochs[0], epochs[-1] + 1)):
            yield f"attempt {attempt} did epochs {epochs}"
    told = epochs_done(events)
    if told != set(range(1, len(told) + 1)):
        yield f"its journal leaves out epochs: it has {sorted(told)}"
    if sum(event.kind == "evaluation" for event in events) > 1:
        yield "it has several evaluations"


def folders_left(stories: Sequence[Story], data_dir: Path) -> Sequence[str]:
    """Folders that should be gone: those of deleted jobs, and checkpoints after success."""
    kept = {story.name.rpartition("/")[2] for story in stories if story.name and not story.deleted}
    left = []
    for folder in sorted((data_dir / "jobs").glob("*")):
        if folder.name not in kept:
            left.append(f"the folder of {folder.name} is left over")
        elif (folder / MODEL).exists() and (folder / CHECKPOINTS).exists():
            left.append(f"the checkpoints of {folder.name} are left over")
    return left


def epochs_done(events: Sequence[Event]) -> set[int]:
    """The epochs that a journal tells of."""
    return {each.metrics.epoch for each in _epochs(events)}


def final(events: Sequence[Event]) -> State:
    """The last state that a journal tells of."""
    return [each.payload.state for each in events if isinstance(each.payload, StateChanged)][-1]


def run_of(events: Sequence[Event]) -> str | None:
    """MLflow's id of the run that a journal names."""
    runs = {each.payload.mlflow_run_id for each in events if isinstance(each.payload, Tracked)}
    return runs.pop() if len(runs) == 1 else None


def _epochs(events: Sequence[Event], attempt: int | None = None) -> Iterator[EpochCompleted]:
    for event in events:
        if isinstance(event.payload, EpochCompleted) and attempt in (None, event.attempt):
            yield event.payload


def _ends(events: Sequence[Event]) -> bool:
    return any(
        isinstance(event.payload, StateChanged) and event.payload.state.terminal for event in events
    )
