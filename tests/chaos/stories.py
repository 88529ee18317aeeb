"""What clients do with their jobs: each has a plot of its own, drawn from the seed, and a record of what was asked."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from tests.chaos.specs import SPECS

import dropnorm as dn
from dropnorm.results import Event

T = TypeVar("T")

Plot = Literal["wait", "pause", "cancel", "cross", "delete", "clean up"]
# Of a hundred jobs.
_SHARES: dict[Plot, int] = {
    "wait": 46,
    "pause": 24,
    "cancel": 10,
    "cross": 6,
    "delete": 7,
    "clean up": 7,
}
_WATCHED_SHARE = 0.5
_REPEATED_SHARE = 0.4
_CALL_TIMEOUT = 10.0
_AGAIN = 0.3
_LOOK = 1.0
_LATEST_CALL = 3.0

KEY = "story"
"""Label of a job that says whose it is."""


@dataclass
class Story:
    """One job from its client's side."""

    number: int
    spec: str
    plot: Plot
    random: random.Random
    watched: bool
    repeats: int
    name: str | None = None
    """The job's resource name, once it is accepted."""
    asked: set[str] = field(default_factory=set)
    """Calls that may have had an effect."""
    deleted: bool = False
    """A delete was answered."""
    ended: bool = False
    """It was seen in a final state, or deleted."""
    over: bool = False
    """Its client waits for nothing more, nor does its watcher."""
    seen: Sequence[Event] | None = None
    """What its watcher was told from the first event to the last; None when nobody watched it to its end."""
    wrong: list[str] = field(default_factory=list)
    """Answers that break a promise."""

    @property
    def request_id(self) -> str:
        return f"chaos-{self.number}"


def drawn(seed: int, count: int) -> Sequence[Story]:
    """The stories of a seed."""
    stories = []
    for number in range(count):
        chance = random.Random(f"{seed}/{number}")  # noqa: S311 - a schedule, no secret
        [plot] = chance.choices(list(_SHARES), list(_SHARES.values()))
        stories.append(
            Story(
                number=number,
                spec=chance.choice(list(SPECS)),
                plot=plot,
                random=chance,
                watched=chance.random() < _WATCHED_SHARE,
                repeats=chance.randint(1, 3) if chance.random() < _REPEATED_SHARE else 0,
            )
        )
    return stories


async def live(story: Story, client: dn.AsyncClient) -> None:
    """Submit the job and do with it what the plot says, through every fault, until it has ended."""
    try:
        await _live(story, client)
    except dn.DropnormError as error:
        story.wrong.append(f"its client was told: {error}")
    story.over = True


async def _live(story: Story, client: dn.AsyncClient) -> None:
    job = await _submit(story, client)
    watcher = asyncio.create_task(_watch(story, client, job.name)) if story.watched else None
    try:
        await _act(story, job)
        await _see_it_end(story, job)
        if story.plot == "clean up":
            await _delete(story, job, force=False)
        if watcher is not None:
            await watcher
    finally:
        if watcher is not None:
            watcher.cancel()


async def _submit(story: Story, client: dn.AsyncClient) -> dn.AsyncJobHandle:
    """Create it, perhaps several times at once under one request id: all answers must name one job."""

    async def create() -> dn.AsyncJobHandle:
        return await persist(
            lambda: client.train(
                SPECS[story.spec],
                request_id=story.request_id,
                labels={KEY: str(story.number)},
                experiment="chaos",
                timeout=_CALL_TIMEOUT,
            ),
            story.wrong,
        )

    jobs = await asyncio.gather(*(create() for _ in range(1 + story.repeats)))
    story.name = jobs[0].name
    if len({job.name for job in jobs}) > 1:
        story.wrong.append("one request_id was answered with several jobs")
    return jobs[0]


async def _act(story: Story, job: dn.AsyncJobHandle) -> None:
    match story.plot:
        case "pause":
            for _ in range(story.random.randint(1, 2)):
                await _later(story)
                await _ask(story, job, "pause")
                await _later(story)
                await _ask(story, job, "resume")
        case "cancel":
            await _later(story)
            await _ask(story, job, "cancel")
        case "cross":
            calls = ["pause", "resume", "pause", "cancel"]
            story.random.shuffle(calls)
            await _later(story)
            await asyncio.gather(*(_ask(story, job, each) for each in calls))
        case "delete":
            await _later(story)
            await _delete(story, job, force=True)


async def _ask(story: Story, job: dn.AsyncJobHandle, call: str) -> None:
    story.asked.add(call)
    try:
        await persist(lambda: getattr(job, call)(timeout=_CALL_TIMEOUT), story.wrong)
    except dn.WrongState as error:
        if not job.snapshot.state.terminal:
            await persist(lambda: job.refresh(timeout=_CALL_TIMEOUT), story.wrong)
        if not (job.snapshot.state.terminal or "cancel" in story.asked):
            story.wrong.append(f"{call} was refused without need: {error}")


async def _delete(story: Story, job: dn.AsyncJobHandle, *, force: bool) -> None:
    story.asked.add("delete")
    with contextlib.suppress(dn.NotFound):  # an earlier try did it, and its answer was lost
        await persist(lambda: job.delete(force=force, timeout=_CALL_TIMEOUT), story.wrong)
    story.deleted = story.ended = True


async def _see_it_end(story: Story, job: dn.AsyncJobHandle) -> None:
    """Wait for its final state. A pause whose answer was lost may come true late, and is taken back then."""
    while not story.ended:
        await persist(lambda: job.refresh(timeout=_CALL_TIMEOUT), story.wrong)
        story.ended = job.snapshot.state.terminal
        if job.snapshot.state is dn.State.PAUSED:
            await _ask(story, job, "resume")
        elif not story.ended:
            await asyncio.sleep(_LOOK)


async def _watch(story: Story, client: dn.AsyncClient, name: str) -> None:
    try:
        job = await persist(lambda: client.job(name, timeout=_CALL_TIMEOUT), story.wrong)
        story.seen = [event async for event in job.watch()]
    except dn.NotFound as error:
        if "delete" not in story.asked:
            story.wrong.append(f"its watcher was told that there is no such job: {error}")
    except dn.DropnormError as error:
        story.wrong.append(f"its watcher was told: {error}")


async def _later(story: Story) -> None:
    await asyncio.sleep(story.random.uniform(0.0, _LATEST_CALL))


async def persist(call: Callable[[], Awaitable[T]], wrong: list[str]) -> T:
    """The answer to a call, asked again for as long as nobody has one.

    Args:
        call: makes it.
        wrong: where a failure of the service's own is written down.
    """
    while True:
        try:
            return await call()
        except (dn.Unavailable, dn.DeadlineExceeded):
            pass
        except dn.Internal as error:
            wrong.append(f"a call was answered: {error} (request {error.request_id})")
        await asyncio.sleep(_AGAIN)


def outcome_is_explained(story: Story, state: Any) -> bool:
    """Whether what was asked explains how the job ended."""
    if state is dn.State.CANCELLED:
        return bool(story.asked & {"cancel", "delete"})
    return state is dn.State.SUCCEEDED
