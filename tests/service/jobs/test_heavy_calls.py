"""Plans, predictions, exports and downloads, and requests for jobs: how many a user may have under way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from tests.service.api.details import details, failure, status_of
from tests.service.api.edge import edge_of
from tests.service.callers import ADA, BOB
from tests.service.jobs.bench import (
    PATIENCE,
    SPEC,
    Bench,
    BenchExporter,
    BenchPlanner,
    BenchPredictor,
)

from dropnorm.results import Plan, State
from dropnorm.spec import ExportSettings, Submission, Tensor, TrainingSpec
from dropnorm.v1 import model_service_pb2 as pb
from dropnorm.v1.model_service_pb2_grpc import ModelServiceStub
from dropnorm_service.jobs.callers import LOCAL, Caller
from dropnorm_service.jobs.errors import LimitReached
from dropnorm_service.jobs.limits import JobLimits
from dropnorm_service.jobs.models import ModelService
from dropnorm_service.jobs.registered import RegisteredModels
from dropnorm_service.store import SqlJobStore

LIMIT, CREATES = 3, 4
INPUTS = Tensor(shape=(1, 2), dtype="float32", data=bytes(8))
ONNX = ExportSettings(format="onnx")


class LargeExporter(BenchExporter):
    """Writes more than a connection takes that nobody reads."""

    content = bytes(2**25)


class HeldPlanner(BenchPlanner):
    """A planner whose line is long while the test wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.came: asyncio.Queue[None] = asyncio.Queue()
        self.free = asyncio.Event()
        self.free.set()

    async def plan(self, spec: TrainingSpec, *, uploads: bool = True, user: str = "") -> Plan:
        self.came.put_nowait(None)
        await self.free.wait()
        return await super().plan(spec, uploads=uploads, user=user)


@dataclass(frozen=True)
class Parts:
    """A service with the model of a job that is shared, and an export of it."""

    bench: Bench
    models: ModelService
    planner: HeldPlanner
    job_id: str


@pytest.fixture
async def parts(store: SqlJobStore, tmp_path: Path) -> AsyncIterator[Parts]:
    planner = HeldPlanner()
    limits = JobLimits(heavy_calls=LIMIT, creates=CREATES)
    bench = Bench(store, tmp_path / "jobs", planner=planner, limits=limits)
    registered = RegisteredModels(bench.jobs, None, store.models, tmp_path / "models")
    models = ModelService(bench.jobs, BenchPredictor(), LargeExporter(), registered)
    await bench.service.start()
    job = await bench.as_(ADA).create(Submission(spec=SPEC, shared=True))
    (await bench.launched()).succeed()
    async with asyncio.timeout(PATIENCE):
        async for _ in bench.jobs.watch(ADA, job.id):
            pass
    assert (await bench.as_(ADA).get(job.id)).state is State.SUCCEEDED
    await models.export(ADA, job.id, ONNX)
    yield Parts(bench, models, planner, job.id)
    await bench.service.stop(grace=0.0)


Call = Callable[[Parts, Caller], Awaitable[Any]]
CALLS: dict[str, Call] = {
    "plan": lambda parts, user: parts.bench.jobs.plan(user, SPEC),
    "predict": lambda parts, user: parts.models.predict(user, parts.job_id, INPUTS),
    "export": lambda parts, user: parts.models.export(user, parts.job_id, ONNX),
    "download": lambda parts, user: anext(
        aiter(parts.models.download(user, parts.job_id, "onnx", 0))
    ),
}


@pytest.mark.parametrize("name", CALLS)
async def test_so_many_are_under_way_and_others_are_served_all_the_same(parts: Parts, name: str):
    call = CALLS[name]
    parts.planner.free.clear()
    plans = [asyncio.create_task(parts.bench.jobs.plan(ADA, SPEC)) for _ in range(LIMIT)]
    await asyncio.sleep(0)
    with pytest.raises(LimitReached, match="3 of your plans, predictions, exports") as raised:
        await call(parts, ADA)
    assert raised.value.metadata["setting"] == "max_heavy_calls_per_user"
    assert raised.value.retry_after == 1

    others = asyncio.ensure_future(call(parts, BOB))
    plans.pop().cancel()
    await asyncio.sleep(0)
    own = asyncio.ensure_future(call(parts, ADA))
    parts.planner.free.set()
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(others, own, *plans)


async def test_so_many_requests_for_jobs_are_checked_at_once_and_a_repeat_needs_no_place(
    parts: Parts,
):
    jobs, asked = parts.bench.jobs, Submission(spec=SPEC)
    accepted = await jobs.create(ADA, asked, request_id="known")
    parts.planner.free.clear()
    parts.planner.came = asyncio.Queue()
    creating = [asyncio.create_task(jobs.create(ADA, asked)) for _ in range(CREATES)]
    for _ in range(CREATES):
        await parts.planner.came.get()
    for validate_only in (False, True):
        with pytest.raises(LimitReached, match="4 of your requests for jobs") as raised:
            await jobs.create(ADA, asked, validate_only=validate_only)
        assert raised.value.metadata["setting"] == "max_creates_per_user"
        assert raised.value.retry_after == 1
    assert (await jobs.create(ADA, asked, request_id="known")).id == accepted.id

    others = asyncio.create_task(jobs.create(BOB, asked))
    parts.planner.free.set()
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(others, *creating)
        await jobs.create(ADA, asked)


async def test_a_download_that_nobody_reads_has_a_place_until_it_ends(parts: Parts, tmp_path: Path):
    server = edge_of(parts.bench, tmp_path)
    address = await server.start("127.0.0.1", 0)
    request = pb.DownloadModelExportRequest(name=f"trainingJobs/{parts.job_id}/exports/onnx")
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            stub: Any = ModelServiceStub(channel)
            downloads = [stub.DownloadModelExport(request) for _ in range(LIMIT)]
            for download in downloads:
                assert (await download.read()).offset == 0
            error = await failure(stub.DownloadModelExport(request).read())
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            [told] = details(status_of(error), error_details_pb2.RetryInfo)
            assert told.retry_delay.seconds == 1
            downloads[0].cancel()
            async with asyncio.timeout(PATIENCE):
                await _served(parts)
    finally:
        await server.stop(grace=0.0)


async def _served(parts: Parts) -> None:
    """Ask again and again, until there is a place."""
    while True:
        with suppress(LimitReached):
            await parts.bench.jobs.plan(LOCAL, SPEC)
            return
        await asyncio.sleep(0.01)
