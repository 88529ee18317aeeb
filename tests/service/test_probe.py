"""The health check of containers: the standard health service, asked with the settings of the service itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from grpc_health.v1.health import HealthServicer
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from tests.certificates import Authority, Pair

from dropnorm_service import probe


@pytest.fixture
def serve() -> Iterator[Callable[..., int]]:
    """Starts a health service; its port."""
    servers: list[grpc.Server] = []

    def start(credentials: grpc.ServerCredentials | None = None, *, healthy: bool = True) -> int:
        server = grpc.server(ThreadPoolExecutor(1))
        health = HealthServicer()
        health.set("", HealthCheckResponse.SERVING if healthy else HealthCheckResponse.NOT_SERVING)
        add_HealthServicer_to_server(health, server)
        if credentials is None:
            port = server.add_insecure_port("127.0.0.1:0")
        else:
            port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        servers.append(server)
        return port

    yield start
    for server in servers:
        server.stop(None).wait()


def credentials(pair: Pair, clients: Path | None = None) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials(
        [(pair.key.read_bytes(), pair.certificate.read_bytes())],
        clients.read_bytes() if clients else None,
        require_client_auth=clients is not None,
    )


def test_a_service_that_can_work(serve, tmp_path) -> None:
    assert probe.main(["--port", str(serve()), "--host", "0.0.0.0"]) == 0  # noqa: S104 - as containers have it


@pytest.mark.parametrize("host", ["localhost", "train.example.org", "*.example.org"])
def test_a_service_with_tls_whatever_its_certificate_is_for(serve, tmp_path, host: str) -> None:
    pair = Authority(tmp_path).issue("server", host=host)
    port = serve(credentials(pair))
    flags = ["--tls-certificate", str(pair.certificate), "--tls-key", str(pair.key)]

    assert probe.main(["--port", str(port), *flags]) == 0


def test_a_service_that_asks_for_certificates(serve, tmp_path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("server")
    port = serve(credentials(pair, authority.ca))
    flags = ["--tls-certificate", str(pair.certificate), "--tls-key", str(pair.key)]

    assert probe.main(["--port", str(port), *flags, "--tls-client-ca", str(authority.ca)]) == 0


def test_a_service_that_cannot_work(serve, capsys) -> None:
    assert probe.main(["--port", str(serve(healthy=False))]) == 1
    assert "says NOT_SERVING" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags", [[], ["--tls-certificate", "server.crt", "--tls-key", "server.key"]]
)
def test_nobody_listens(flags, capsys) -> None:
    assert probe.main(["--port", "1", *flags]) == 1
    assert "nothing answers at 127.0.0.1:1" in capsys.readouterr().err


def test_wrong_settings_are_named(capsys) -> None:
    assert probe.main(["--port", "never"]) == 2
    assert "port" in capsys.readouterr().err
