"""The engine of containers that this machine has, and compositions of containers on it, as an operator runs them."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.e2e.servers import eventually
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
BASE_IMAGES = ("python:3.11-slim-bookworm", "postgres:15")
SERVICES = ("service", "postgres", "mlflow")  # of compose.yaml
PATIENCE = 300.0
_MANY_SECONDS = 3600.0


def run(*command: object, env: Mapping[str, str] = {}, check: bool = True) -> str:
    """A command's standard output; when it fails, the test does, with what it said."""
    done = subprocess.run(
        [str(part) for part in command],
        check=False,
        cwd=ROOT,
        env=os.environ | env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_MANY_SECONDS,
    )
    said = f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    assert done.returncode == 0 or not check, said[-20_000:]
    return done.stdout


@functools.cache
def obstacle() -> str:
    """Why no containers can be run here; empty when they can."""
    if shutil.which("docker") is None or not _works("docker", "info"):
        return "no Docker engine answers (`docker info`)"
    if not compose_commands():
        return "there is neither `docker compose` nor `docker-compose`"
    for image in BASE_IMAGES:
        if not (_works("docker", "image", "inspect", image) or _works("docker", "pull", image)):
            return f"the base image {image} cannot be had"
    return ""


@functools.cache
def compose_commands() -> list[list[str]]:
    """Each way of calling Compose that there is, the newer one first."""
    ways = (["docker", "compose"], ["docker-compose"])
    return [way for way in ways if shutil.which(way[0]) and _works(*way, "version")]


def _works(*command: str) -> bool:
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def inspect(thing: str) -> dict[str, Any]:
    """All that the engine tells of a container or an image."""
    [found] = json.loads(run("docker", "inspect", thing))
    assert isinstance(found, dict)
    return found


class Composition:
    """The containers of a compose file, under a project's name and on ports that nobody else has."""

    def __init__(self, file: str, secrets: Path) -> None:
        """
        Args:
            file: name of the file under `docker`.
            secrets: folder for what `docker/make-secrets` makes.
        """
        self.project = f"dropnorm-test-{uuid.uuid4().hex[:8]}"
        self.port, self.mlflow_port = free_port(), free_port()
        self.secrets = secrets
        path = ROOT / "docker" / file
        self._command = [*compose_commands()[0], "-p", self.project, "-f", str(path)]
        self._environment = {
            "DROPNORM_CPU_SLOTS": "2",
            "DROPNORM_THREADS_PER_SLOT": "1",
            "DROPNORM_IMAGE": "dropnorm-test",
            "DROPNORM_PUBLISH": f"127.0.0.1:{self.port}",
            "DROPNORM_DEV_PUBLISH": f"127.0.0.1:{self.port}",
            "DROPNORM_SECRETS": str(secrets),
            "MLFLOW_IMAGE": "dropnorm-mlflow-test",
            "MLFLOW_PUBLISH": f"127.0.0.1:{self.mlflow_port}",
        }

    @property
    def mlflow(self) -> str:
        """Where MLflow's page is."""
        return f"http://127.0.0.1:{self.mlflow_port}"

    def make_secrets(self, *arguments: str) -> None:
        run("docker/make-secrets", *arguments, env=self._environment)

    def compose(self, *arguments: object) -> str:
        return run(*self._command, *arguments, env=self._environment)

    def script(self, page: str, folder: Path) -> None:
        """Run commands of the documentation, which call Compose `$compose`, in a folder of their own."""
        shown = 'compose="docker compose -f docker/compose.yaml"\n'
        here = f'cd "$1"\ncompose="{" ".join(self._command)}"\n'
        run("sh", "-euc", here + page.replace(shown, ""), "sh", folder, env=self._environment)

    def execute(self, service: str, *command: str) -> str:
        """What a command in a service's container says."""
        return self.compose("exec", "-T", service, *command)

    def container(self, service: str) -> str:
        """The id of a service's container, which may have stopped."""
        found = run(
            *("docker", "ps", "--all", "--quiet", "--no-trunc"),
            *("--filter", f"label=com.docker.compose.project={self.project}"),
            *("--filter", f"label=com.docker.compose.service={service}"),
        ).split()
        assert len(found) == 1, f"{service} has the containers {found}"
        return found[0]

    def state(self, service: str) -> dict[str, Any]:
        """The engine's report on a service's container: Status, ExitCode, Health and so on."""
        state = inspect(self.container(service))["State"]
        assert isinstance(state, dict)
        return state

    def healthy(self, *services: str) -> None:
        """Wait until the health checks of services succeed."""
        for service in services:
            self._become_healthy(service)

    def _become_healthy(self, service: str) -> None:
        eventually(
            lambda: self.state(service)["Health"]["Status"] == "healthy",
            f"{service} becomes healthy",
            within=PATIENCE,
        )

    def logs(self, service: str) -> str:
        """All that a service has said since its container was made."""
        return run(
            "sh", "-c", 'exec docker logs "$1" 2>&1', "sh", self.container(service), check=False
        )

    def end(self) -> None:
        """Leave no container, volume or network behind."""
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "5")


def processes(composition: Composition, service: str) -> Sequence[tuple[str, str]]:
    """Each process in a service's container: its state, one letter, and its name."""
    script = (
        "import glob\n"
        "for path in glob.glob('/proc/[0-9]*/stat'):\n"
        "    try:\n"
        "        head, _, tail = open(path).read().rpartition(')')\n"
        "    except OSError:\n"
        "        continue\n"
        "    print(tail.split()[0], head.partition('(')[2])\n"
    )
    said = composition.execute(service, "python", "-c", script)
    return [(line[0], line[2:]) for line in said.splitlines()]
