"""The ports that the service listens on: free, or its own already."""

from __future__ import annotations

import errno
import socket
import urllib.request
from collections.abc import Callable

import grpc
from grpc_health.v1 import health_pb2

from dropnorm_service.doctor.data_folder import running
from dropnorm_service.doctor.findings import Finding, Findings, failure, ok, warning
from dropnorm_service.settings import Settings

_PATIENCE = 5.0
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what to ask where it listens everywhere


def look(settings: Settings) -> Findings:
    """The port of the service, and that of the metrics if there is one."""
    holder = running(settings)
    yield _port(settings.host, settings.port, "--port", holder, _health)
    if settings.metrics_port is not None:
        yield _port(
            settings.metrics_host, settings.metrics_port, "--metrics-port", holder, _metrics
        )


def _port(
    host: str, port: int, flag: str, holder: str, ask: Callable[[str], Finding | None]
) -> Finding:
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if port == 0:
        return ok("ports", f"The service takes a free port of {host} ({flag} 0).")
    problem = _obstacle(host, port)
    if problem is None:
        return ok("ports", f"{where} is free.")
    if problem.errno != errno.EADDRINUSE:
        return failure(
            "ports",
            f"The service cannot listen on {where} ({problem.strerror}).",
            f"Choose an address of this machine, and a {flag} that this user may use (from 1024 on).",
        )
    asked = (
        f"{_ANY.get(host, host)}:{port}" if ":" not in host else f"[{_ANY.get(host, host)}]:{port}"
    )
    if (said := ask(asked)) is not None:
        return said
    if holder:
        return ok(
            "ports", f"{where} is in use, and a service (process {holder}) runs on the data folder."
        )
    return failure(
        "ports",
        f"{where} is in use by another program.",
        f"Stop it (`ss -ltnp` names it), or choose another {flag}.",
    )


def _obstacle(host: str, port: int) -> OSError | None:
    """Why nobody could listen there now."""
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[
            0
        ]
        with socket.socket(family, kind, number) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
            trial.listen()
    except OSError as error:
        return error
    return None


def _health(address: str) -> Finding | None:
    """What a dropnorm service there says of its health; None: there is none, or it speaks TLS."""
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            health_pb2.HealthCheckRequest.SerializeToString,
            health_pb2.HealthCheckResponse.FromString,
        )
        request = health_pb2.HealthCheckRequest(service="dropnorm.v1.TrainingService")
        try:
            reply = check(request, timeout=_PATIENCE)
        except grpc.RpcError:
            return None
    if reply.status == health_pb2.HealthCheckResponse.SERVING:
        return ok("ports", f"A dropnorm service answers on {address}, and is ready.")
    return warning(
        "ports",
        f"A dropnorm service answers on {address}, and is not ready.",
        "Its log says `unhealthy` and why: the store cannot be written, or no workers can be started.",
    )


def _metrics(address: str) -> Finding | None:
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=_PATIENCE) as reply:
            ours = b"dropnorm_build_info" in reply.read()
    except (OSError, ValueError):
        return None
    return ok("ports", f"A dropnorm service serves metrics on {address}.") if ours else None
