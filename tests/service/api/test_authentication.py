"""Tokens at the edge: who is let in, with what, and for how long; over a real connection and database."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from tests.service.api.details import details, failure, status_of
from tests.service.api.guarded import METHODS, Guarded, authorization, guarded, now
from tests.service.jobs.bench import SPEC, Bench
from tests.service.jobs.conftest import bench, store

from dropnorm import wire
from dropnorm.results import Plan
from dropnorm.spec import Submission, TrainingSpec
from dropnorm.v1 import dataset_service_pb2 as datasets
from dropnorm.v1.training_job_pb2 import TrainingJob
from dropnorm.v1.training_service_pb2 import (
    CreateTrainingJobRequest,
    GetTrainingJobRequest,
    PlanTrainingJobRequest,
    WatchTrainingJobRequest,
)
from dropnorm_service import audit
from dropnorm_service.api.authorization import RULES
from dropnorm_service.jobs.callers import Role
from dropnorm_service.store import SqlJobStore

__all__ = ["bench", "store"]

GET = "/dropnorm.v1.TrainingService/GetTrainingJob"
WATCH = "/dropnorm.v1.TrainingService/WatchTrainingJob"
PLAN = "/dropnorm.v1.TrainingService/PlanTrainingJob"
CREATE = "/dropnorm.v1.TrainingService/CreateTrainingJob"
UPLOAD = "/dropnorm.v1.DatasetService/UploadDataset"
WORKERS = "/dropnorm.v1.TrainingService/ListWorkers"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
GUARDED = sorted(method for method, rule in RULES.items() if rule.role is not None)
FOR_USERS = sorted(method for method, rule in RULES.items() if rule.role is Role.USER)

Code = grpc.StatusCode


@pytest.fixture
async def service(bench: Bench, store: SqlJobStore, tmp_path: Path) -> AsyncIterator[Guarded]:
    async with guarded(bench, store, tmp_path) as service:
        yield service


def test_the_table_has_every_rpc_and_nothing_else():
    assert set(RULES) == set(METHODS)


@pytest.mark.parametrize("method", GUARDED)
async def test_every_rpc_but_health_needs_a_token(service: Guarded, method: str):
    error = await failure(service.call(method))

    assert error.code() is Code.UNAUTHENTICATED
    assert "dropnorm tokens create" in (error.details() or "")


async def test_health_needs_none(service: Guarded):
    await service.call("/grpc.health.v1.Health/Check")


@pytest.mark.parametrize("method", FOR_USERS)
async def test_a_viewer_is_told_which_role_it_takes(service: Guarded, method: str):
    _, bearer = await service.token(Role.VIEWER)
    error = await failure(service.call(method, bearer))
    [info] = details(status_of(error), error_details_pb2.ErrorInfo)

    assert error.code() is Code.PERMISSION_DENIED
    assert f"{method.rpartition('/')[2]} needs the role user" in (error.details() or "")
    assert (info.reason, info.metadata["needed_role"]) == ("ROLE_REQUIRED", "user")


async def test_each_role_may_do_what_the_ones_below_it_may(service: Guarded):
    for role in Role:
        _, bearer = await service.token(role)
        await service.call(WORKERS, bearer)
        await service.call(REFLECTION, bearer)
        allowed = await failure(service.call(FOR_USERS[0], bearer))
        assert (allowed.code() is Code.PERMISSION_DENIED) == (role < Role.USER)


async def test_whatever_is_wrong_with_a_token_the_answer_is_the_same(service: Guarded):
    token, bearer = await service.token()
    revoked, old = await service.token()
    await service.tokens.revoke(revoked.id)
    _, late = await service.token(lifetime=timedelta(0))
    stranger = f"{bearer[:-4]}AAAA"
    answers = set()
    for given in (old, late, stranger, f"dn_{'0' * 12}_{'x' * 43}", "nonsense", "", "~" * 99):
        error = await failure(service.call(WORKERS, given))
        [info] = details(status_of(error), error_details_pb2.ErrorInfo)
        answers.add((error.code(), error.details(), info.reason, str(info.metadata)))
    missing = await failure(service.call(WORKERS))

    assert len(answers) == 1
    assert missing.details() in answers.pop()
    await service.call(WORKERS, bearer)
    assert token.id in bearer


async def test_two_tokens_in_one_call_are_none(service: Guarded):
    _, bearer = await service.token()
    call: Any = service.channel.unary_unary(WORKERS)

    error = await failure(call(b"", metadata=authorization(bearer) * 2))

    assert error.code() is Code.UNAUTHENTICATED


async def test_a_token_made_a_moment_ago_is_known_at_once(service: Guarded):
    for _ in range(3):
        _, bearer = await service.token()
        await service.call(WORKERS, bearer)


async def test_only_hashes_are_stored(service: Guarded, tmp_path: Path):
    _, bearer = await service.token()
    await service.call(WORKERS, bearer)

    files = [tmp_path / name for name in ("jobs.db", "jobs.db-wal")]
    stored = b"".join(path.read_bytes() for path in files)

    _, token_id, secret = bearer.split("_", 2)  # a secret may have such characters too
    assert token_id.encode() in stored
    assert secret.encode() not in stored
    assert bearer[-20:].encode() not in stored


async def test_a_revoked_token_lets_nobody_in_within_seconds(service: Guarded):
    token, bearer = await service.token()
    await service.call(WORKERS, bearer)
    await service.execute("UPDATE tokens SET revoke_time = 1")  # as another process would

    async def until_refused() -> None:
        while True:
            await service.call(WORKERS, bearer)
            await asyncio.sleep(0.05)

    error = await asyncio.wait_for(failure(until_refused()), 60)
    assert error.code() is Code.UNAUTHENTICATED
    assert token.valid(now())


async def test_a_store_that_cannot_be_read_lets_nobody_in_nor_into_the_log(
    service: Guarded, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    _, bearer = await service.token()
    await service.execute("ALTER TABLE tokens RENAME TO mislaid")
    caplog.clear()

    errors = await asyncio.gather(*(failure(service.call(CREATE, bearer)) for _ in range(200)))
    assert {error.code() for error in errors} == {Code.UNAVAILABLE}
    assert len([each for each in caplog.records if each.name == audit.LOGGER]) < 100
    assert not [each for each in caplog.records if each.getMessage() == "call"]
    error = await failure(service.call(WORKERS, bearer))

    assert error.code() is Code.UNAVAILABLE
    assert "mislaid" not in str(error)
    assert "tokens" not in (error.details() or "")
    await service.execute("ALTER TABLE mislaid RENAME TO tokens")
    await service.call(WORKERS, bearer)


async def test_a_watch_ends_when_its_token_is_revoked(service: Guarded, bench: Bench):
    job = await bench.service.create(Submission(spec=SPEC))
    token, bearer = await service.token(Role.ADMIN)
    watch: Any = service.channel.unary_stream(WATCH)
    request = WatchTrainingJobRequest(name=job.name).SerializeToString()
    call = watch(request, metadata=authorization(bearer), timeout=30)
    assert await call.read() is not grpc.aio.EOF
    await service.tokens.revoke(token.id)

    error = await failure(_drain(call))

    assert error.code() is Code.UNAUTHENTICATED


async def test_a_conversation_ends_when_its_token_expires(service: Guarded):
    _, bearer = await service.token(lifetime=timedelta(seconds=1.5))
    converse: Any = service.channel.stream_stream(REFLECTION)
    call = converse(metadata=authorization(bearer), timeout=30)

    error = await failure(_drain(call))

    assert error.code() is Code.UNAUTHENTICATED


async def test_an_upload_ends_when_its_token_is_revoked(service: Guarded):
    token, bearer = await service.token()
    upload: Any = service.channel.stream_unary(UPLOAD)
    call = upload(metadata=authorization(bearer), timeout=30)
    header = datasets.UploadHeader(dataset_id="half", size_bytes=10**6, sha256="0" * 64)
    await call.write(datasets.UploadDatasetRequest(header=header).SerializeToString())
    await service.tokens.revoke(token.id)

    error = await failure(call)

    assert error.code() is Code.UNAUTHENTICATED


@pytest.mark.parametrize("method", [PLAN, CREATE])
async def test_a_call_that_takes_long_ends_when_its_token_is_revoked(
    service: Guarded, bench: Bench, method: str
):
    asked, answered = asyncio.Event(), asyncio.Event()
    plan = bench.planner.plan

    async def slowly(spec: TrainingSpec, *, uploads: bool = True, user: str = "") -> Plan:
        asked.set()
        await answered.wait()
        return await plan(spec, uploads=uploads)

    bench.planner.plan = slowly  # type: ignore[method-assign]
    wanted = wire.to_message(Submission(spec=SPEC), TrainingJob)
    requests: dict[str, Message] = {
        PLAN: PlanTrainingJobRequest(spec=wanted.spec),
        CREATE: CreateTrainingJobRequest(training_job=wanted, training_job_id="never"),
    }
    token, bearer = await service.token()
    call = asyncio.ensure_future(service.call(method, bearer, requests[method].SerializeToString()))
    await asked.wait()
    await service.tokens.revoke(token.id)

    error = await failure(call)

    assert error.code() is Code.UNAUTHENTICATED
    answered.set()
    assert await bench.store.get("never") is None


async def test_the_streams_of_others_go_on(service: Guarded, bench: Bench):
    job = await bench.service.create(Submission(spec=SPEC))
    revoked, first = await service.token(Role.ADMIN)
    _, second = await service.token(Role.ADMIN)
    watch: Any = service.channel.unary_stream(WATCH)
    request = WatchTrainingJobRequest(name=job.name).SerializeToString()
    cut, kept = (
        watch(request, metadata=authorization(bearer), timeout=30) for bearer in (first, second)
    )
    await kept.read()
    await service.tokens.revoke(revoked.id)
    await failure(_drain(cut))

    await bench.service.cancel(job.id)

    assert await kept.read() is not grpc.aio.EOF
    assert not kept.done()


async def test_get_names_the_job_to_who_may_see_it(service: Guarded, bench: Bench):
    job = await bench.service.create(Submission(spec=SPEC))
    _, bearer = await service.token(Role.ADMIN)
    request = GetTrainingJobRequest(name=job.name).SerializeToString()

    assert job.name.encode() in await service.call(GET, bearer, request)


async def test_too_long_ended_tokens_are_forgotten(service: Guarded):
    kept, _ = await service.token(lifetime=timedelta(seconds=-1))
    gone, _ = await service.token(lifetime=timedelta(days=-31))
    new, _ = await service.token()
    listed = [token.id for token in await service.tokens.list()]

    assert gone.id not in listed
    assert listed == [kept.id, new.id]
    assert now() > kept.create_time


async def _drain(call: Any) -> list[bytes]:
    """What a stream still says."""
    replies = []
    while (reply := await call.read()) is not grpc.aio.EOF:
        replies.append(reply)
    return replies
