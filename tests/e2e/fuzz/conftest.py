from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.conftest import SMALL
from tests.e2e.fuzz.calls import TALLY, Wire
from tests.e2e.servers import Server


@pytest.fixture(scope="package")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service for these tests alone; it must be well, and must have met no error of its own, when they have ended."""
    folder: Path = tmp_path_factory.mktemp("fuzz")
    (folder / "imports").mkdir()
    server = Server(folder / "data", *SMALL, "--import-dirs", str(folder / "imports")).start()
    yield server
    alive = server.process.poll() is None
    health = server.health() if alive else "dead"
    server.end()
    assert alive, server.log[-4000:]
    assert health == "SERVING"
    assert "unexpected error" not in server.log


@pytest.fixture(scope="package")
def wire(target: Server) -> Iterator[Wire]:
    wire = Wire(target.address)
    yield wire
    wire.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if TALLY.methods:
        terminalreporter.section("fuzzing")
        for line in TALLY.lines():
            terminalreporter.write_line(line)
