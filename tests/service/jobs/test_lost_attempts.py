"""Where a job's folder cannot be made, its attempts are lost by no fault of its own."""

import errno
from pathlib import Path

import pytest
from tests.service.jobs.bench import PROMPT, Bench

from dropnorm.results import State, StateChanged
from dropnorm_service.jobs.callers import LOCAL


async def test_a_disk_without_room_for_the_jobs_folder_is_waited_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    def full(folder: Path, *args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(folder))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", full)
        jobs = [await bench.create() for _ in range(3)]
        for job in jobs:
            async for event in bench.jobs.watch(LOCAL, job.id, 0):
                if event.attempt > 2 * PROMPT.limit:
                    break
    for _ in jobs:
        (await bench.launched()).succeed()
    for job in jobs:
        await bench.reached(job, State.SUCCEEDED)
    reasons = {
        event.payload.error.reason
        for event in await bench.journal(jobs[0])
        if isinstance(event.payload, StateChanged) and event.payload.error
    }
    assert reasons == {"DISK_FULL"}


async def test_a_folder_that_cannot_be_made_is_the_worlds_fault(bench: Bench):
    bench.folder.write_text("in the way")
    failed = await bench.reached(await bench.create(), State.FAILED)
    assert failed.error is not None
    assert (failed.error.reason, failed.attempt) == ("IO_ERROR", PROMPT.limit)
