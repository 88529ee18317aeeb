from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.e2e.servers import Server, SlowedServer

import dropnorm as dn

SMALL = ("--cpu-slots", "2", "--threads-per-slot", "1", "--gpus", "0")


@pytest.fixture(scope="session")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service that mirrors to MLflow; the tests that do not harm it share it."""
    server = Server(tmp_path_factory.mktemp("tracked"), *SMALL).start()
    yield server
    server.end()


@pytest.fixture(scope="session")
def client(tracked: Server) -> Iterator[dn.Client]:
    with tracked.client() as client:
        yield client


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Makes services that a test may treat as badly as it likes; not started."""
    with ExitStack() as stack:

        def make(*flags: str) -> Server:
            server = Server(tmp_path / "data", *SMALL, "--no-tracking", *flags)
            stack.callback(server.end)
            return server

        yield make


@pytest.fixture
def make_slowed(tmp_path: Path) -> Iterator[Callable[..., SlowedServer]]:
    """Likewise of services whose trainings are slow after some epochs, until the test speeds them up."""
    with ExitStack() as stack:

        def make(*flags: str, after: int = 10) -> SlowedServer:
            server = SlowedServer(tmp_path / "data", *SMALL, "--no-tracking", *flags)
            stack.callback(server.end)
            server.slow_down(after)
            return server

        yield make
