"""The gRPC server: dropnorm's services, health and reflection behind one port."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import OVERALL_HEALTH
from grpc_health.v1.health import SERVICE_NAME as HEALTH
from grpc_reflection.v1alpha import reflection

from dropnorm.v1 import dataset_service_pb2, model_service_pb2, training_service_pb2
from dropnorm.v1.dataset_service_pb2_grpc import add_DatasetServiceServicer_to_server
from dropnorm.v1.model_service_pb2_grpc import add_ModelServiceServicer_to_server
from dropnorm.v1.training_service_pb2_grpc import add_TrainingServiceServicer_to_server
from dropnorm_service.api.accepting import make_server
from dropnorm_service.api.authorization import LARGEST
from dropnorm_service.api.datasets import DatasetServicer
from dropnorm_service.api.guard import Guard
from dropnorm_service.api.health import HealthServicer
from dropnorm_service.api.interceptors import EdgeInterceptor
from dropnorm_service.api.models import ModelServicer
from dropnorm_service.api.observers import CallObserver, Observers
from dropnorm_service.api.places import CallLimits
from dropnorm_service.api.training import TrainingServicer
from dropnorm_service.datasets.service import DatasetService
from dropnorm_service.jobs.authentication import Authenticator
from dropnorm_service.jobs.models import ModelService
from dropnorm_service.jobs.service import JobService

TRAINING = training_service_pb2.DESCRIPTOR.services_by_name["TrainingService"].full_name
DATASETS = dataset_service_pb2.DESCRIPTOR.services_by_name["DatasetService"].full_name
MODELS = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name

LIVENESS = "liveness"
"""What the health service calls the process as such: it runs and answers. The other names tell whether jobs run."""

_READINESS = (OVERALL_HEALTH, TRAINING, DATASETS, MODELS)

_OPTIONS = (
    ("grpc.so_reuseport", 0),  # a second server on the port is an error, not a silent partner
    # gRPC refuses more as soon as it knows the length; most methods take far less (see `authorization`).
    ("grpc.max_receive_message_length", LARGEST),
    # What a caller may send before anybody reads it stays at 64 KiB a stream. By its own measure of the connection gRPC
    # would let it grow to 4 MiB, for a thousand streams of each connection.
    ("grpc.http2.bdp_probe", 0),
    # Of one connection; a client that wants more waits, or opens another.
    ("grpc.max_concurrent_streams", 1000),
    # Headers of a call: a token and an id are far smaller. gRPC refuses more by RESOURCE_EXHAUSTED.
    ("grpc.max_metadata_size", 8 * 2**10),
    ("grpc.absolute_max_metadata_size", 16 * 2**10),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # Clients ping every half minute to notice a dead connection under a quiet watch; gRPC's own
    # limit of one ping in five minutes would cut them off.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
)


class CannotListen(Exception):
    """The address is taken or is not of this machine."""


class ApiServer:
    """Listens, and says truthfully through the health service whether it can work.

    Args:
        jobs, datasets, models: what it serves.
        authenticator: knows who calls; None: nobody is asked.
        observers: look on while calls are served.
        limits: of calls at once.
    """

    def __init__(
        self,
        jobs: JobService,
        datasets: DatasetService,
        models: ModelService,
        authenticator: Authenticator | None = None,
        observers: Sequence[CallObserver] = (),
        limits: CallLimits | None = None,
    ) -> None:
        look = Observers(observers)
        self._guard = Guard(authenticator)
        self._guarding: asyncio.Task[None] | None = None
        self._server = make_server([EdgeInterceptor(self._guard, look, limits)], _OPTIONS)
        self._health = HealthServicer((*_READINESS, LIVENESS, HEALTH, reflection.SERVICE_NAME))
        add_TrainingServiceServicer_to_server(TrainingServicer(jobs), self._server)
        add_DatasetServiceServicer_to_server(DatasetServicer(datasets, look.received), self._server)
        add_ModelServiceServicer_to_server(ModelServicer(models), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (TRAINING, DATASETS, MODELS, HEALTH, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)

    async def start(
        self, host: str, port: int, credentials: grpc.ServerCredentials | None = None
    ) -> str:
        """Listen; the address, with the port that port 0 came to. Without credentials in plain text.

        Raises:
            CannotListen: the address cannot be had.
        """
        shown = f"[{host}]" if ":" in host else host
        try:
            if credentials is None:
                bound = self._server.add_insecure_port(f"{shown}:{port}")
            else:
                bound = self._server.add_secure_port(f"{shown}:{port}", credentials)
        except RuntimeError as error:
            raise CannotListen(
                f"cannot listen on {shown}:{port}: the port is taken, or the address is not this machine's; "
                "choose another --port or --host"
            ) from error
        await self._server.start()
        self._guarding = asyncio.create_task(self._guard.run(), name="guard")
        return f"{shown}:{bound}"

    def report(self, healthy: bool) -> None:
        """Say whether jobs are accepted and run; what is not told of works for as long as the server does."""
        self._health.report(_READINESS, healthy=healthy)

    def refuse(self) -> None:
        """Tell load balancers that the end is near; calls are still answered, and nobody need kill us for it."""
        self.report(healthy=False)

    async def stop(self, grace: float) -> None:
        """Close, giving calls in flight some seconds to end."""
        await self._server.stop(grace)
        if self._guarding is not None:
            self._guarding.cancel()
            await asyncio.wait({self._guarding})
