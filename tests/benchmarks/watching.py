"""Many watchers of one job: `python -m tests.benchmarks.watching ADDRESS JOB COUNT`.

Prints `ready` when each has had its first event, and in the end the sequence numbers that each got, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys

import grpc

from dropnorm.v1 import training_service_pb2, training_service_pb2_grpc

_PER_CHANNEL = 50


async def main(address: str, job: str, count: int) -> None:
    """Watch until the service ends every stream."""
    # Channels to one address share a connection unless told otherwise.
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [
        grpc.aio.insecure_channel(address, options=options)
        for _ in range(-(-count // _PER_CHANNEL))
    ]
    begun = asyncio.Semaphore(0)
    watchers = [
        asyncio.create_task(_watch(channels[number // _PER_CHANNEL], job, begun))
        for number in range(count)
    ]
    for _ in range(count):
        await begun.acquire()
    print("ready", flush=True)
    print(json.dumps(await asyncio.gather(*watchers)))
    for channel in channels:
        await channel.close(grace=None)


async def _watch(channel: grpc.aio.Channel, job: str, begun: asyncio.Semaphore) -> list[int]:
    stub = training_service_pb2_grpc.TrainingServiceStub(channel)
    seen: list[int] = []
    async for event in stub.WatchTrainingJob(
        training_service_pb2.WatchTrainingJobRequest(name=job)
    ):
        if not seen:
            begun.release()
        seen.append(event.sequence)
    return seen


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
