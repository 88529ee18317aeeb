"""Kills in the middle of expiry and of collecting: nothing goes that is needed, and nothing stays for ever."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest
from tests.service.datasets.folders import Folder
from tests.service.datasets.test_dataset_service import file_of, sent
from tests.service.jobs.bench import SPEC, Bench
from tests.service.jobs.removals import DATABASE, JOBS, UPLOADS, Facts, facts_of

from dropnorm.datasets.arrays import from_arrays
from dropnorm.results import State
from dropnorm.spec import Data, Submission
from dropnorm_service.jobs.callers import LOCAL
from dropnorm_service.jobs.ports import CHECKPOINTS, EXPORTS, MODEL
from dropnorm_service.store import SqlJobStore

ROOT = Path(__file__).parents[3]
GOING = ["expired", "deleted"]
STAYING = ["cancelled", "kept", "paused"]
PARTS = (f"{CHECKPOINTS}/1.json", f"{CHECKPOINTS}/2.json", f"{MODEL}/model.json")


async def ended(bench: Bench, name: str, dataset: str, ttl: int | None) -> None:
    spec = SPEC.model_copy(update={"data": Data(dataset=dataset)})
    labels = {"about": name}
    job = await bench.jobs.create(
        LOCAL, Submission(spec=spec, ttl=ttl, labels=labels), job_id=name, request_id=name
    )
    (await bench.launched()).succeed()
    await bench.reached(job, State.SUCCEEDED)


async def fill(folder: Path) -> None:
    """Jobs in every state of going and staying, with files and data sets of every kind."""
    async with await SqlJobStore.open(f"sqlite:///{folder / DATABASE}") as store:
        bench = Bench(store, folder / JOBS, cpus=1, read_up_to=lambda: 0)
        await bench.jobs.start()
        await ended(bench, "kept", "used", ttl=30 * 86_400)
        await ended(bench, "expired", "was-used", ttl=3600)
        await ended(bench, "deleted", "was-used", ttl=None)
        await bench.service.delete("deleted")
        for name, ask in (("paused", bench.service.pause), ("cancelled", bench.service.cancel)):
            job = await bench.jobs.create(LOCAL, Submission(spec=SPEC), job_id=name)
            attempt = await bench.launched()
            await bench.reached(job, State.RUNNING)
            await ask(name)
            await attempt.obey()
            await bench.reached(job, State[name.upper()])
        await bench.jobs.stop(grace=0.0)
    for name in ("expired", *STAYING):
        for part in PARTS:
            write(folder / JOBS / name / part)
    for name in ("deleted", "unknown"):
        write(folder / JOBS / name / PARTS[0])
    write(folder / JOBS / "kept" / EXPORTS / "pt2" / "model.pt2")
    await upload(folder)


async def upload(folder: Path) -> None:
    """Data sets that jobs use, used, and never used, two of them with one file, and what broke off."""
    uploads = Folder(folder / UPLOADS)
    shared = file_of(folder / "shared")
    for name in ("used", "was-used", "never-used"):
        await sent(uploads, shared, name)
    alone = file_of(folder / "alone", from_arrays([[1.0], [2.0], [3.0], [4.0]] * 5, [0, 1] * 10))
    await sent(uploads, alone, "alone")
    for name in ("never-used", "alone"):
        os.utime(folder / UPLOADS / "names" / f"{name}.json", (0, 0))
    broken = folder / UPLOADS / "partial" / f"{'0' * 64}.somebody"
    write(broken)
    os.utime(broken, (0, 0))


def write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")


def to_stay(folder: Path, before: Facts) -> Facts:
    """What there is once all is gone that nobody needs."""
    alone = json.loads((folder / UPLOADS / "names" / "alone.json").read_text())
    gone = tuple(
        [f"{JOBS}/{name}/" for name in (*GOING, "unknown")]
        + [f"{JOBS}/kept/{CHECKPOINTS}/", f"{UPLOADS}/partial/"]
        + [f"{UPLOADS}/names/{name}.json" for name in ("was-used", "never-used", "alone")]
        + [f"{UPLOADS}/files/{alone['sha256']}.safetensors"]
    )
    return {
        "jobs": STAYING,
        "whole": True,
        "files": [each for each in before["files"] if not each.startswith(gone)],
        "folders": STAYING,
    }


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_whenever_it_is_killed_what_is_needed_stays_and_the_next_service_removes_the_rest(
    tmp_path: Path,
):
    template = tmp_path / "template"
    template.mkdir()
    await fill(template)
    before = facts_of(template)
    assert before["whole"]
    until = to_stay(template, before)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.service.jobs.removals", template, json.dumps(until)),
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0
    steps = [json.loads(line) for line in said.splitlines()]
    assert len(steps) >= 20, "files, folders and transactions one by one"
    for step in steps:
        left = step["left"]
        assert left["whole"], "a job is there with its journal, or not at all"
        assert set(until["jobs"]) <= set(left["jobs"])
        assert set(until["files"]) <= set(left["files"])
        assert set(left["folders"]) - {"unknown"} <= set(left["jobs"])
        assert step["restarted"] == 0
        assert step["end"] == until
    assert [step["killed"] for step in steps] == [True] * (len(steps) - 1) + [False]
