"""What clients do where the service has had enough, and how they share things."""

from __future__ import annotations

import grpc
import pytest
from tests.client import samples
from tests.client.scripted import Fault, rejection

import dropnorm as dn
from dropnorm.results import State, StateChanged

Code = grpc.StatusCode


def away() -> Fault:
    return rejection(
        Code.UNAVAILABLE, "STORE_UNAVAILABLE", "The database is away.", retry_after=0.01
    )


def full(retry_after: float | None = 0.01) -> Fault:
    return rejection(
        Code.RESOURCE_EXHAUSTED,
        "LIMIT_REACHED",
        "Your jobs wait.",
        retry_after=retry_after,
        setting="max_queued_jobs_per_user",
    )


@pytest.mark.parametrize("refused", [full(), away()])
async def test_a_call_is_repeated_when_the_service_says_as_often_as_there_is_time(
    kind, client, service, refused
):
    service.faults["CreateTrainingJob"] = [refused] * 20
    job = await kind.do(client.train, samples.SPEC, job_id="first")
    assert job.id == "first"
    assert len({request.request_id for request in service.requests}) == 1
    assert len(service.requests) == 21


async def test_what_is_told_to_wait_longer_than_its_time_says_so(kind, client, service):
    service.faults["CreateTrainingJob"] = [full(retry_after=60.0)]
    with pytest.raises(dn.ResourceExhausted, match="Your jobs wait") as raised:
        await kind.do(client.train, samples.SPEC)
    assert raised.value.retry_after == 60.0
    assert raised.value.metadata == {"setting": "max_queued_jobs_per_user"}
    assert len(service.requests) == 1


async def test_where_waiting_does_not_help_nothing_is_repeated(kind, client, service):
    service.faults["CreateTrainingJob"] = [full(retry_after=None)]
    with pytest.raises(dn.ResourceExhausted) as raised:
        await kind.do(client.train, samples.SPEC)
    assert raised.value.retry_after is None


async def test_what_is_not_safe_to_repeat_is_not_repeated(kind, client, service):
    service.add(samples.job("first"))
    job = await kind.do(client.job, "first")
    service.faults["DeleteTrainingJob"] = [full()]
    with pytest.raises(dn.ResourceExhausted):
        await kind.do(job.delete)


async def test_a_watch_waits_for_a_free_stream_within_its_patience(kind, client, service):
    service.add(samples.job("first"), StateChanged(state=State.CANCELLED))
    job = await kind.do(client.job, "first")
    service.faults["WatchTrainingJob"] = [full()] * 3
    assert len(await kind.items(job.watch())) == 2
    service.faults["WatchTrainingJob"] = [full(retry_after=60.0)]
    with pytest.raises(dn.ResourceExhausted) as raised:
        await kind.items(job.watch())
    assert raised.value.retry_after == 60.0


async def test_a_job_is_shared_and_no_longer(kind, client, service):
    job = await kind.do(client.train, samples.SPEC, shared=True)
    assert job.shared
    assert not (await kind.do(job.unshare)).shared
    assert (await kind.do(job.share)).shared
    assert job.owner == "local"
    assert [list(request.update_mask.paths) for request in service.requests[1:]] == [["shared"]] * 2


async def test_a_follower_hears_of_it(kind, client, service):
    service.add(samples.job("first"))
    job = await kind.do(client.job, "first")
    await service.tell(
        job.name, dn.SharingChanged(shared=True), StateChanged(state=State.CANCELLED)
    )
    events = await kind.items(job.watch(after=1))
    assert str(events[0].payload) == "shared with the project"
    assert job.shared
