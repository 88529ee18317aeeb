"""Images of the working tree, and compositions of containers made of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.docker.engine import PATIENCE, SERVICES, Composition, inspect, obstacle, run
from tests.figures import Figures

import dropnorm as dn

# The services of compose.yaml that are built here, and the image that the tests have each built to.
BUILT = {"service": "dropnorm-test", "mlflow": "dropnorm-mlflow-test"}


@pytest.fixture(scope="session", autouse=True)
def engine() -> None:
    if reason := obstacle():
        pytest.skip(reason)


@pytest.fixture(scope="session")
def images(engine: None, figures: Figures) -> dict[str, str]:
    """The image of each service that is built here, by its name."""
    for service, image in BUILT.items():
        began = time.monotonic()
        run(
            *("docker", "build", "--file", "docker/Dockerfile"),
            *("--target", service),
            *("--tag", image),
            ".",
        )
        seconds = time.monotonic() - began
        size = inspect(image)["Size"] / 1e6
        figures("docker", f"image {image}: {size:,.0f} MB, built in {seconds:.0f} s")
    return BUILT


@pytest.fixture(scope="module")
def compose(
    images: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Composition]]:
    """Starts a compose file of `docker`; everything is gone at the end of the module."""
    started: list[Composition] = []

    def start(file: str) -> Composition:
        secrets: Path = tmp_path_factory.mktemp("secrets")
        composition = Composition(file, secrets)
        composition.make_secrets()
        started.append(composition)
        composition.compose("up", "--detach", "--no-build")
        return composition

    yield start
    for composition in started:
        composition.end()


@pytest.fixture(scope="module")
def team(compose: Callable[[str], Composition], figures: Figures) -> Composition:
    """compose.yaml, up and healthy."""
    began = time.monotonic()
    composition = compose("compose.yaml")
    composition.healthy(*SERVICES)
    figures("docker", f"compose.yaml up and healthy in {time.monotonic() - began:.0f} s")
    return composition


@pytest.fixture(scope="module")
def token(team: Composition) -> str:
    said = team.execute(
        "service", "dropnorm", "tokens", "create", "--user", "tester", "--role", "admin"
    )
    return said.split()[-1]


@pytest.fixture(scope="module")
def client(team: Composition, token: str) -> Iterator[dn.Client]:
    tls = dn.TLS(ca=team.secrets / "ca.crt")
    address = f"127.0.0.1:{team.port}"
    with dn.Client(address, token=token, tls=tls, patience=PATIENCE) as client:
        yield client
