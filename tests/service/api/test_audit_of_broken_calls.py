"""What the audit log says of changes whose callers hang up, or are sent away: what became of them, and of what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from tests.service.api.details import failure
from tests.service.api.edge import edge_of
from tests.service.api.guarded import Guarded, authorization, guarded
from tests.service.api.test_audit import SERVICE, heard, log
from tests.service.api.test_ownership import CASES, Kind, World, world
from tests.service.callers import ADA
from tests.service.jobs.bench import PATIENCE, SPEC, Bench
from tests.service.jobs.conftest import bench, store

from dropnorm import wire
from dropnorm.results import Plan
from dropnorm.spec import Submission, TrainingSpec
from dropnorm.v1 import training_job_pb2
from dropnorm.v1 import training_service_pb2 as pb
from dropnorm_service.api import auditing
from dropnorm_service.api.authorization import RULES
from dropnorm_service.api.context import caller
from dropnorm_service.jobs.callers import Role
from dropnorm_service.jobs.ports import Change
from dropnorm_service.store import SqlJobStore
from dropnorm_service.unbroken import Undertaking

__all__ = ["bench", "log", "store", "world"]

CREATE, DELETE = f"{SERVICE}/CreateTrainingJob", f"{SERVICE}/DeleteTrainingJob"
WATCH = f"{SERVICE}/WatchTrainingJob"
HEALTH = "/grpc.health.v1.Health/Check"
WANTED = wire.to_message(Submission(spec=SPEC), training_job_pb2.TrainingJob)


@pytest.fixture
async def service(bench: Bench, store: SqlJobStore, tmp_path: Path) -> AsyncIterator[Guarded]:
    async with guarded(bench, store, tmp_path) as service:
        yield service


class Gate:
    """What comes to it waits until it is opened."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.open = asyncio.Event()
        self.left = asyncio.Event()
        """Set when who waited has given up."""

    async def passed(self) -> None:
        self.reached.set()
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.left.set()
            raise


@pytest.fixture
def commits(store: SqlJobStore, monkeypatch: pytest.MonkeyPatch) -> Gate:
    """Before what the store commits for a call."""
    gate, commit = Gate(), store.commit

    async def slowly(change: Change) -> None:
        if caller.get(None) is not None:
            await gate.passed()
        await commit(change)

    monkeypatch.setattr(store, "commit", slowly)
    return gate


@pytest.fixture
def plans(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Gate:
    """Before what the planner says."""
    gate, plan = Gate(), bench.planner.plan

    async def slowly(spec: TrainingSpec, *, uploads: bool = True, user: str = "") -> Plan:
        await gate.passed()
        return await plan(spec, uploads=uploads)

    monkeypatch.setattr(bench.planner, "plan", slowly)
    return gate


def begun(service: Guarded, method: str, bearer: str, request: Message) -> Any:
    call: Any = service.channel.unary_unary(method)
    return call(request.SerializeToString(), metadata=authorization(bearer), timeout=60)


async def hang_up(service: Guarded, call: Any) -> None:
    """Returns when the service knows of it: what comes later on the same connection is answered."""
    call.cancel()
    await service.call(HEALTH)
    await service.call(HEALTH)


async def drained(stream: Any) -> None:
    async for _ in stream:
        pass


async def records(log: pytest.LogCaptureFixture) -> list[tuple[str, str, str, str]]:
    """What the audit log says, once it says something."""
    async with asyncio.timeout(PATIENCE):
        while not heard(log):  # noqa: ASYNC110 - the log tells nobody
            await asyncio.sleep(0.01)
    return heard(log)


async def test_a_job_is_named_whose_creator_hung_up(
    service: Guarded, bench: Bench, commits: Gate, log: pytest.LogCaptureFixture
):
    _, bearer = await service.token()
    call = begun(service, CREATE, bearer, pb.CreateTrainingJobRequest(training_job=WANTED))
    await commits.reached.wait()
    await hang_up(service, call)
    assert heard(log) == [], "nobody knows yet"
    commits.open.set()
    job = (await bench.launched()).launch.job_id
    assert await records(log) == [("CreateTrainingJob", f"trainingJobs/{job}", "OK", "user")]


async def test_a_deletion_whose_caller_hung_up_is_done_and_said_to_be(
    service: Guarded, bench: Bench, commits: Gate, log: pytest.LogCaptureFixture
):
    job = await bench.create()
    _, bearer = await service.token(Role.ADMIN)
    call = begun(service, DELETE, bearer, pb.DeleteTrainingJobRequest(name=job.name, force=True))
    await commits.reached.wait()
    await hang_up(service, call)
    assert heard(log) == []
    commits.open.set()
    assert await records(log) == [("DeleteTrainingJob", job.name, "OK", "admin")]
    assert await bench.store.get(job.id) is None


async def test_a_change_that_is_refused_after_its_caller_hung_up_is_said_to_be(
    service: Guarded, bench: Bench, commits: Gate, log: pytest.LogCaptureFixture
):
    known = await bench.create()
    _, bearer = await service.token()
    request = pb.CreateTrainingJobRequest(training_job=WANTED, training_job_id=known.id)
    call = begun(service, CREATE, bearer, request)
    await commits.reached.wait()
    await hang_up(service, call)
    commits.open.set()
    assert await records(log) == [("CreateTrainingJob", known.id, "ALREADY_EXISTS", "user")]


async def test_what_is_only_waited_for_is_given_up_and_has_changed_nothing(
    service: Guarded, bench: Bench, plans: Gate, log: pytest.LogCaptureFixture
):
    _, bearer = await service.token()
    request = pb.CreateTrainingJobRequest(training_job=WANTED, training_job_id="never")
    call = begun(service, CREATE, bearer, request)
    await plans.reached.wait()
    call.cancel()
    await asyncio.wait_for(plans.left.wait(), PATIENCE)
    assert await records(log) == [("CreateTrainingJob", "never", "CANCELLED", "user")]
    plans.open.set()
    assert await bench.store.get("never") is None


async def test_a_change_that_had_begun_when_its_token_was_revoked_is_said_to_be_done(
    service: Guarded, bench: Bench, commits: Gate, log: pytest.LogCaptureFixture
):
    watched = await bench.create()
    token, bearer = await service.token(Role.ADMIN)
    watch: Any = service.channel.unary_stream(WATCH)
    asked = pb.WatchTrainingJobRequest(name=watched.name)
    stream = watch(asked.SerializeToString(), metadata=authorization(bearer), timeout=60)
    request = pb.CreateTrainingJobRequest(training_job=WANTED, training_job_id="made")
    call = begun(service, CREATE, bearer, request)
    await commits.reached.wait()
    await service.tokens.revoke(token.id)
    await failure(drained(stream))  # all calls with a token are cut together
    commits.open.set()
    error = await failure(call)
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert heard(log) == [("CreateTrainingJob", "trainingJobs/made", "OK", "admin")]
    assert await bench.store.get("made") is not None


async def test_a_service_that_stops_waits_for_no_change_that_nobody_waits_for(
    bench: Bench, commits: Gate, tmp_path: Path, log: pytest.LogCaptureFixture
):
    server = edge_of(bench, tmp_path)
    address = await server.start("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(address) as channel:
        make: Any = channel.unary_unary(CREATE)
        request = pb.CreateTrainingJobRequest(training_job=WANTED, training_job_id="last")
        call = asyncio.ensure_future(make(request.SerializeToString()))
        await commits.reached.wait()
        await server.stop(grace=0.0)
        with suppress(grpc.aio.AioRpcError):
            await call
    assert heard(log) == []
    commits.open.set()
    assert await records(log) == [("CreateTrainingJob", "trainingJobs/last", "OK", "local")]


@pytest.mark.parametrize(
    "method",
    sorted(
        name.rpartition("/")[2]
        for name, rule in RULES.items()
        # Uploads and exports have theirs in tests/service/datasets and tests/service/workers.
        if rule.changes
        and CASES[name.rpartition("/")[2]].kind is not Kind.OWN
        and not name.endswith("/ExportModel")
    ),
)
async def test_every_change_says_that_it_may_have_changed_something(
    world: World, monkeypatch: pytest.MonkeyPatch, method: str
):
    undertakings: list[Undertaking[Any]] = []

    class Seen(Undertaking[Any]):
        def __init__(self, work: Any) -> None:
            super().__init__(work)
            undertakings.append(self)

    case = CASES[method]
    subject = await getattr(world, case.make)(True)
    monkeypatch.setattr(auditing, "Undertaking", Seen)
    await world.call(ADA, method, case.request(subject))
    [undertaking] = undertakings
    assert undertaking.may_have_changed
