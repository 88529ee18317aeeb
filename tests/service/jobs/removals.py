"""A service that removes what nobody needs any more, and is killed at each step of it in turn.

A step is the removal of one file or folder, a renaming, or a transaction: the process dies right before it, so that
every state between two of them is met. What was left then, and what a service that is started on it leaves in the end,
is printed, a line of JSON for each step.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event
from tests.service.jobs.bench import Bench

from dropnorm.results import Dataset
from dropnorm_service.datasets import collector
from dropnorm_service.datasets.limits import Limits
from dropnorm_service.datasets.service import DatasetService
from dropnorm_service.jobs import purging
from dropnorm_service.store import SqlJobStore, removal

DATABASE, JOBS, UPLOADS = "jobs.db", "jobs", "uploads"

_REMOVING = ("os.remove", "os.rmdir", "os.rename")
_PATIENCE = 60.0

Facts = dict[str, Any]


def facts_of(folder: Path) -> Facts:
    """What there is: files, jobs, and rows that belong to no job or lack something."""
    with closing(sqlite3.connect(folder / DATABASE)) as database:
        jobs = dict(database.execute("SELECT id, last_sequence FROM jobs ORDER BY id").fetchall())
        deleted = {row[0] for row in database.execute("SELECT id FROM jobs WHERE deleted = 1")}
        journals = dict(
            database.execute("SELECT job_id, count(*) FROM events GROUP BY job_id").fetchall()
        )
        # Of a deleted job the end may be gone, which nobody sees any more.
        journals |= {name: jobs[name] for name in deleted if journals.get(name, 0) <= jobs[name]}
        specs = {row[0] for row in database.execute("SELECT job_id FROM specs")}
    return {
        "jobs": list(jobs),
        "whole": journals == jobs and specs == set(jobs),
        "files": sorted(
            os.path.relpath(Path(above, name), folder)
            for part in (JOBS, UPLOADS)
            for above, _, names in os.walk(folder / part)  # does not mind what goes meanwhile
            for name in names
        ),
        "folders": sorted(path.name for path in (folder / JOBS).iterdir()),
    }


def die_before(step: int) -> None:
    """Let this process kill itself before a step, counted from 1."""
    steps = itertools.count(1)

    def take() -> None:
        if next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(lambda name, _: take() if name in _REMOVING else None)
    event.listen(Engine, "commit", lambda _: take())


class _NoInspector:
    """Nothing is uploaded here."""

    async def inspect(self, dataset_id: str, path: Path) -> Dataset:
        raise NotImplementedError


def _tomorrow() -> datetime:
    return datetime.now(UTC) + timedelta(days=1)


async def serve(folder: Path, until: Facts) -> None:
    """Run a service until nothing is left but what is to stay."""
    purging._INTERVAL = collector._SHORTEST = collector._LONGEST = 0.02
    removal._EVENTS = 2
    async with await SqlJobStore.open(f"sqlite:///{folder / DATABASE}") as store:
        bench = Bench(store, folder / JOBS, clock=_tomorrow)

        async def nobody(dataset_id: str) -> Sequence[Any]:
            return ()

        datasets = DatasetService(
            folder / UPLOADS,
            _NoInspector(),
            jobs_using=nobody,
            on_change=lambda: None,
            limits=Limits(),
        )
        await bench.jobs.sweep()
        await bench.jobs.start()
        collecting = asyncio.create_task(collector.Collector(datasets, store.datasets, 0.1).run())
        async with asyncio.timeout(_PATIENCE):
            while facts_of(folder) != until:  # noqa: ASYNC110 - nobody tells of files that are gone
                await asyncio.sleep(0.01)
        collecting.cancel()
        await bench.jobs.stop(grace=0.0)


def _forked(folder: Path, until: Facts, step: int | None) -> int:
    """Serve in a process of its own; its exit status, negative if it was killed."""
    process = os.fork()
    if process == 0:
        if step is not None:
            die_before(step)
        asyncio.run(serve(folder, until))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def main(template: Path, until: Facts) -> None:
    """Go through all steps, each on a copy of its own."""
    for step in itertools.count(1):
        folder = template.with_name(f"step-{step}")
        shutil.copytree(template, folder)
        killed = _forked(folder, until, step) == -signal.SIGKILL
        left = facts_of(folder)
        restarted = _forked(folder, until, None)
        told = {"killed": killed, "left": left, "restarted": restarted, "end": facts_of(folder)}
        print(json.dumps(told), flush=True)
        shutil.rmtree(folder)
        if not killed:
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
