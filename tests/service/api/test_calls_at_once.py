"""What one user may have at the edge: calls, streams and messages on their way; others are served meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from tests.service.api.details import details, failure, status_of
from tests.service.api.guarded import Guarded, authorization, guarded, now
from tests.service.jobs.bench import SPEC, Bench
from tests.service.jobs.conftest import bench, store

from dropnorm import wire
from dropnorm.spec import Submission
from dropnorm.v1 import training_service_pb2 as pb
from dropnorm.v1.training_job_pb2 import TrainingJob
from dropnorm_service.api import guard, interceptors, messages
from dropnorm_service.api.authorization import LARGEST
from dropnorm_service.api.places import CallLimits, Lines
from dropnorm_service.jobs.callers import LOCAL, Caller, Role
from dropnorm_service.store import SqlJobStore

__all__ = ["bench", "store"]

TRAINING = "/dropnorm.v1.TrainingService"
LIST = f"{TRAINING}/ListTrainingJobs"
CREATE = f"{TRAINING}/CreateTrainingJob"
PREDICT = "/dropnorm.v1.ModelService/Predict"
UPLOAD = "/dropnorm.v1.DatasetService/UploadDataset"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"

Code = grpc.StatusCode

LIMITS = CallLimits(calls=12, user_calls=6, user_sending=3)


@pytest.fixture
async def service(bench: Bench, store: SqlJobStore, tmp_path: Path) -> AsyncIterator[Guarded]:
    async with guarded(bench, store, tmp_path, limits=LIMITS) as service:
        yield service


def silent(service: Guarded, method: str, bearer: str) -> Any:
    """A call whose message does not come yet."""
    make: Any = service.channel.stream_unary
    if method == REFLECTION:
        make = service.channel.stream_stream
    return make(method)(metadata=authorization(bearer), timeout=60)


async def taken(service: Guarded, method: str, bearer: str, number: int) -> list[Any]:
    """So many silent calls, in their places before any later one of this connection."""
    await service.authenticator.identify(bearer)  # a token that is known is not looked up
    calls = [silent(service, method, bearer) for _ in range(number)]
    for call in calls:
        await call.wait_for_connection()
    return calls


async def until(code: grpc.StatusCode, service: Guarded, bearer: str) -> None:
    """Ask again and again, until a call is answered with this code."""
    async with asyncio.timeout(30):
        while True:
            list_jobs: Any = service.channel.unary_unary(LIST)
            if await list_jobs(b"", metadata=authorization(bearer)).code() is code:
                return


async def refusal(service: Guarded, method: str, bearer: str) -> tuple[str, str, int]:
    """The limit that refuses a call sooner or later, whose it is, and the pause it tells."""
    async with asyncio.timeout(30):
        while True:
            call = silent(service, method, bearer)
            done, _ = await asyncio.wait({asyncio.ensure_future(call.code())}, timeout=0.5)
            if done:
                break
            call.cancel()
    error = await failure(call.read() if method == REFLECTION else call)
    assert error.code() is Code.RESOURCE_EXHAUSTED
    [info] = details(status_of(error), error_details_pb2.ErrorInfo)
    [quota] = details(status_of(error), error_details_pb2.QuotaFailure)
    [told] = details(status_of(error), error_details_pb2.RetryInfo)
    return info.metadata["setting"], quota.violations[0].subject, told.retry_delay.seconds


async def test_calls_without_a_message_are_a_users_own(service: Guarded):
    _, greedy = await service.token(Role.VIEWER, user="greedy")
    _, other = await service.token(Role.VIEWER, user="other")
    calls = await taken(service, LIST, greedy, 6)

    assert await refusal(service, LIST, greedy) == ("max_calls_per_user", "user:greedy", 1)
    await service.call(LIST, other)
    calls[0].cancel()
    await until(Code.OK, service, greedy)


@pytest.mark.parametrize("method", [REFLECTION, UPLOAD])
async def test_streams_that_say_nothing_count_from_their_beginning(service: Guarded, method: str):
    _, greedy = await service.token(Role.USER, user="greedy")
    _, other = await service.token(Role.USER, user="other")
    streams = await taken(service, method, greedy, 3)

    assert await refusal(service, method, greedy) == ("max_uploads_per_user", "user:greedy", 5)
    await service.call(REFLECTION, other)
    await service.call(LIST, greedy)
    assert not any(stream.done() for stream in streams)


async def test_the_service_as_a_whole_takes_so_many(service: Guarded):
    calls = []
    for user in ("first", "second"):
        _, bearer = await service.token(Role.VIEWER, user=user)
        calls += await taken(service, LIST, bearer, 6)
    _, third = await service.token(Role.VIEWER, user="third")

    assert await refusal(service, LIST, third) == ("max_calls", "service", 1)
    assert not any(call.done() for call in calls)


async def test_a_message_that_does_not_come_is_not_waited_for(
    service: Guarded, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(messages, "IDLE", 0.1)
    _, bearer = await service.token(Role.VIEWER)
    error = await failure(silent(service, LIST, bearer))
    assert error.code() is Code.INVALID_ARGUMENT
    assert "has not come within 0.1 seconds" in str(error.details())


async def test_a_call_without_a_message_is_refused(service: Guarded):
    _, bearer = await service.token(Role.VIEWER)
    call = silent(service, LIST, bearer)
    await call.done_writing()
    error = await failure(call)
    assert error.code() is Code.INVALID_ARGUMENT
    assert "the call has no message" in str(error.details())


async def test_what_most_methods_take_is_small(service: Guarded):
    _, bearer = await service.token(Role.VIEWER)
    large = pb.ListTrainingJobsRequest(filter="x" * 2**20).SerializeToString()
    error = await failure(service.call(LIST, bearer, large))
    assert error.code() is Code.INVALID_ARGUMENT
    assert "one of this method has at most 1,048,576" in str(error.details())


async def test_a_tensor_is_larger_than_what_other_methods_take(service: Guarded):
    _, bearer = await service.token(Role.VIEWER)
    error = await failure(service.call(PREDICT, bearer, b"\xff" * (LARGEST - 100)))
    assert "not a valid protobuf message" in str(error.details())
    error = await failure(service.call(PREDICT, bearer, b"\xff" * (LARGEST + 1)))
    assert error.code() is Code.RESOURCE_EXHAUSTED


async def test_a_message_that_comes_after_the_end_of_its_token_is_not_carried_out(
    bench: Bench, store: SqlJobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(guard, "_INTERVAL", 600.0)  # nobody cuts calls off meanwhile
    waiting: asyncio.Queue[None] = asyncio.Queue()

    async def waited_for(context: Any) -> bytes:
        waiting.put_nowait(None)
        return await messages.the_message(context)

    monkeypatch.setattr(interceptors, "the_message", waited_for)
    wanted = wire.to_message(Submission(spec=SPEC), TrainingJob)
    request = pb.CreateTrainingJobRequest(training_job=wanted, training_job_id="late")
    ahead = timedelta(0)
    async with guarded(bench, store, tmp_path, lambda: now() + ahead) as service:
        revoked, first = await service.token()
        _, second = await service.token(lifetime=timedelta(hours=1))
        calls = [silent(service, CREATE, bearer) for bearer in (first, second)]
        for _ in calls:
            await waiting.get()
        await service.tokens.revoke(revoked.id)
        ahead = timedelta(hours=2)
        for bearer in (first, second):
            await until(Code.UNAUTHENTICATED, service, bearer)
        for call in calls:
            await call.write(request.SerializeToString())
            assert (await failure(call)).code() is Code.UNAUTHENTICATED
    assert await bench.store.get("late") is None


async def test_messages_on_their_way_stand_in_line():
    lines, inside = Lines(each=2, everybody=3), list[str]()
    gone = asyncio.Event()

    async def send(user: str) -> None:
        async with lines.passed(Caller(user, Role.USER)):
            inside.append(user)
            await gone.wait()

    sending = [asyncio.create_task(send(user)) for user in ("a", "a", "a", "b", "b")]
    for _ in range(10):
        await asyncio.sleep(0)
    assert inside == ["a", "a", "b"]
    gone.set()
    await asyncio.gather(*sending)
    async with lines.passed(LOCAL):
        assert sorted(inside) == ["a", "a", "a", "b", "b"]


async def test_who_sends_slowly_keeps_no_other_user_waiting(service: Guarded):
    _, slow = await service.token(Role.VIEWER, user="slow")
    _, other = await service.token(Role.VIEWER, user="other")
    calls = await taken(service, LIST, slow, 5)
    await service.call(LIST, other)
    await service.call(LIST, slow)
    for call in calls:
        await call.write(b"")
    assert len(await asyncio.gather(*calls)) == 5
