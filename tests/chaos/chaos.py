"""One round of chaos, from an empty folder to the findings."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos import promises, stories
from tests.chaos.databases import Open
from tests.chaos.faults import Faults
from tests.chaos.processes import Processes
from tests.chaos.promises import Findings
from tests.chaos.runs import Runs
from tests.chaos.service import Service
from tests.chaos.specs import Numbers, references
from tests.chaos.stories import Story
from tests.chaos.tracking import Front
from tests.chaos.wires import Wire
from tests.ports import free_port
from tests.service.tracking.page import mlflow_server

import dropnorm as dn
from dropnorm.results import Event
from dropnorm_service.tracking import TrackingConfig

_SLOTS = ("--cpu-slots", "2", "--threads-per-slot", "1", "--gpus", "0")
# Workers die again and again here, which is no job's fault.
_HARDENED = ("--checkpoint-interval", "0.2", "--max-attempts", "1000", "--grace", "10")
_CLIENTS = 5
_AT_ONCE = 30
_LOOK = 0.5
_PATIENCE = 400.0

Say = Callable[[str], None]


@dataclass
class Report:
    """What a round came to."""

    database: str
    seed: int
    jobs: int
    faults: Mapping[str, int] = field(default_factory=dict)
    ends: Mapping[str, int] = field(default_factory=dict)
    """How the jobs ended; `deleted` among them."""
    events: int = 0
    starts: int = 0
    """How often the service began to serve."""
    seconds: float = 0.0
    findings: Findings = field(default_factory=Findings)

    @property
    def counts(self) -> Mapping[str, int]:
        """What went in and what came of it."""
        return {
            "faults in all": sum(self.faults.values()),
            "starts of the service": self.starts,
            "jobs": self.jobs,
            **{f"- {end}": number for end, number in self.ends.items()},
            "events in their journals": self.events,
            "lost": len(self.findings.lost),
            "doubled": len(self.findings.doubled),
            "stuck": len(self.findings.stuck),
            "other promises broken": len(self.findings.broken),
            "seconds": round(self.seconds),
        }


async def calm(folder: Path, mark: str) -> Mapping[str, Numbers]:
    """What each spec comes to when nobody disturbs it: computed once, for all rounds."""
    service = Service(folder / "calm", free_port(), *_SLOTS, "--no-tracking", mark=mark)
    async with _kept(service), dn.AsyncClient(f"127.0.0.1:{service.port}") as client:
        await service.serving.wait()
        return await references(client)


async def storm(
    folder: Path,
    *,
    seed: int,
    jobs: int,
    database: str,
    open_database: Open,
    expected: Mapping[str, Numbers],
    say: Say,
) -> Report:
    """Let jobs pass through a seeded schedule of faults, then check every promise.

    Args:
        folder: a new one, for the service's data and MLflow's.
        seed: of the faults and of what clients do; how they meet in time is the machine's.
        jobs: how many.
        database: its name, for the report.
        open_database: makes the store.
        expected: what each spec comes to undisturbed.
        say: told how far it is.
    """
    report = Report(database, seed, jobs)
    (folder / "mlflow").mkdir(parents=True)
    processes = Processes(mark := f"{folder}")
    plots = stories.drawn(seed, jobs)
    since = time.monotonic()
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_database(folder / "data"))
        tracking = TrackingConfig.resolve(folder / "mlflow")
        front = await stack.enter_async_context(_tracking_server(tracking, folder))
        flags = ["--mlflow-tracking-uri", front.url]
        if store.url is not None:
            flags += ["--database-url", store.url]
        service = Service(folder / "data", free_port(), *_SLOTS, *_HARDENED, *flags, mark=mark)
        wire = await stack.enter_async_context(Wire(lambda: service.port))
        async with _kept(service):
            await service.serving.wait()
            faults = Faults(seed, service, processes, wire, front, store)
            say(f"{database}: {jobs} jobs, seed {seed}")
            await _play(plots, wire.port, faults, say)
            say(f"{database}: the storm is over; looking for what it broke")
            report.findings.stuck += [
                f"{story.name or story.request_id} ({story.plot}): its "
                f"{'watcher' if story.ended else 'client'} still waits"
                for story in plots
                if not story.over
            ]
            journals = await _check(service, plots, tracking, expected, report.findings)
        report.findings.broken += [f"the service ended by itself: {x}" for x in service.own_ends]
    await _until_nothing(processes.alive)
    report.findings.broken += [f"a stray process: {pid}" for pid in processes.alive()]
    report.findings.broken += promises.folders_left(plots, folder / "data")
    report.faults = {kind: faults.done[kind] for kind in faults.kinds}
    report.starts = service.starts
    report.events = sum(map(len, journals.values()))
    report.ends = _ends(plots, journals)
    report.seconds = time.monotonic() - since
    return report


async def _play(plots: Sequence[Story], port: int, faults: Faults, say: Say) -> None:
    """Let every story be lived amidst the faults; those that have not ended long after these are stuck."""
    turns = asyncio.Semaphore(_AT_ONCE)
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(dn.AsyncClient(f"127.0.0.1:{port}", patience=1e6))
            for _ in range(_CLIENTS)
        ]

        async def live(story: Story) -> None:
            async with turns:
                await stories.live(story, clients[story.number % _CLIENTS])

        lives = [asyncio.create_task(live(story)) for story in plots]
        harm = asyncio.create_task(faults.run())
        try:
            await _tell(lives, harm, plots, say)
        finally:
            harm.cancel()
            await asyncio.gather(harm, return_exceptions=True)
            for each in lives:
                each.cancel()
            await asyncio.gather(*lives, return_exceptions=True)
        for each in lives:
            if not each.cancelled():
                each.result()


async def _tell(
    lives: Sequence[asyncio.Task[None]],
    harm: asyncio.Task[None],
    plots: Sequence[Story],
    say: Say,
) -> None:
    """Wait until all lives are over, or for long nothing has ended any more; tell of it meanwhile."""
    ended, changed = 0, time.monotonic()
    while not all(each.done() for each in lives) and not harm.done():
        await asyncio.wait([*lives, harm], timeout=10.0, return_when=asyncio.FIRST_EXCEPTION)
        now = sum(story.over for story in plots)
        say(f"  {now} of {len(plots)} jobs have ended")
        if now > ended:
            ended, changed = now, time.monotonic()
        if time.monotonic() - changed > _PATIENCE or any(map(_failed, lives)):
            return
    if harm.done():
        harm.result()


async def _check(
    service: Service,
    plots: Sequence[Story],
    tracking: TrackingConfig,
    expected: Mapping[str, Numbers],
    findings: Findings,
) -> Mapping[str, Sequence[Event]]:
    database = tracking.folder / "mlflow.db"
    async with dn.AsyncClient(f"127.0.0.1:{service.port}") as client:
        await service.serving.wait()
        # The last fault may have hit just now.
        await stories.persist(client.workers, findings.broken)
        journals = await promises.check_jobs(plots, client, expected, findings)
        await _until_nothing(lambda: Runs(database).unended(journals))
        await _until_nothing(lambda: promises.folders_left(plots, service.data_dir))
        # The runs' ids come into the journals behind the runs.
        journals = {
            name: [event async for event in (await client.job(name)).watch()] for name in journals
        }
    Runs(database).check(journals, findings)
    return journals


async def _until_nothing(missing: Callable[[], Collection[object]]) -> None:
    """Wait until nothing is missing, or for long it gets no less; whoever checks then says what is."""
    left, changed = len(missing()), time.monotonic()
    while left and time.monotonic() - changed < _PATIENCE:
        await asyncio.sleep(_LOOK)
        if (now := len(missing())) != left:
            left, changed = now, time.monotonic()


def _failed(task: asyncio.Task[None]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is not None


def _ends(plots: Sequence[Story], journals: Mapping[str, Sequence[Event]]) -> Mapping[str, int]:
    ends = Counter(promises.final(events).value for events in journals.values())
    ends["deleted"] = sum(story.deleted for story in plots)
    return ends


@asynccontextmanager
async def _kept(service: Service) -> AsyncIterator[None]:
    task = asyncio.create_task(service.keep())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def _tracking_server(config: TrackingConfig, folder: Path) -> AsyncIterator[Front]:
    """A real MLflow server behind what can spoil it."""
    server = mlflow_server(config, port := free_port(), folder / "mlflow.log")
    await asyncio.to_thread(server.__enter__)
    try:
        async with Front(port) as front:
            yield front
    finally:
        await asyncio.to_thread(server.__exit__, None, None, None)
