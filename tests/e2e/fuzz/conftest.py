import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.conftest import SMALL
from tests.e2e.fuzz.calls import TALLY, Wire
from tests.e2e.fuzz.unpickling import Unpickling
from tests.e2e.servers import Server
from tests.figures import Figures


@pytest.fixture(scope="package")
def target(tmp_path_factory: pytest.TempPathFactory, figures: Figures) -> Iterator[Server]:
    """A service for these tests alone: in the end it is well, has met no error of its own, and unpickled nothing."""
    folder: Path = tmp_path_factory.mktemp("fuzz")
    (folder / "imports").mkdir()
    unpickling = Unpickling(folder)
    unpickling.prove()
    server = Server(folder / "data", *SMALL, "--import-dirs", str(folder / "imports"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", unpickling.path)
        server.start()
    yield server
    alive = server.process.poll() is None
    health = server.health() if alive else "dead"
    server.end()
    for line in TALLY.lines():
        figures("fuzzing", line)
    assert alive, server.log[-4000:]
    assert health == "SERVING"
    assert [each for each in messages(server) if "unexpected error" in each] == []
    assert unpickling.seen() == ""


def messages(server: Server) -> Iterator[str]:
    """What its log says in its own words. What callers sent is in it too, and may be any text."""
    for line in server.log.splitlines():
        if line.startswith("{"):  # else gRPC's own
            yield json.loads(line)["message"]


@pytest.fixture(scope="package")
def wire(target: Server) -> Iterator[Wire]:
    wire = Wire(target.address)
    yield wire
    wire.close()
