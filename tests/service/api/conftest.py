"""The service of the jobs' bench behind its real gRPC edge."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.service.api.edge import edge_of
from tests.service.jobs.bench import Bench
from tests.service.jobs.conftest import bench, store

from dropnorm.v1.model_service_pb2_grpc import ModelServiceStub
from dropnorm.v1.training_service_pb2_grpc import TrainingServiceStub

__all__ = ["bench", "channel", "models", "store", "stub"]


@pytest.fixture
async def channel(bench: Bench, tmp_path: Path) -> AsyncIterator[grpc.aio.Channel]:
    """A connection to the service."""
    server = edge_of(bench, tmp_path)
    address = await server.start("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(address) as channel:
        yield channel
    await server.stop(grace=0.0)


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> Any:
    """Calls the service as any client does."""
    return TrainingServiceStub(channel)


@pytest.fixture
def models(channel: grpc.aio.Channel) -> Any:
    """Likewise, of ModelService."""
    return ModelServiceStub(channel)
