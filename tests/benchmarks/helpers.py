"""Processes that put load on a service or measure it: what they do must not be what is measured."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Self

from tests.e2e.servers import own_channel

from dropnorm.v1.training_service_pb2_grpc import TrainingServiceStub

if TYPE_CHECKING:  # of stubs there is one class, and a type for each kind of channel
    from dropnorm.v1.training_service_pb2_grpc import TrainingServiceAsyncStub


class Helper:
    """`python -m tests.benchmarks.NAME ARGUMENTS`, from its start to the end of its block at the latest.

    It says `ready` when it has begun, goes on until its standard input ends or by rules of its own, and then prints
    what it found as a line of JSON.

    Args:
        name: of the module.
        arguments: of its command line.
        niceness: how far it stands back. Those who load a service are on other machines than it, and should not take
            its cores only because it is measured on one.
    """

    def __init__(self, name: str, *arguments: object, niceness: int = 0) -> None:
        self._name = name
        python = ["nice", "-n", str(niceness), sys.executable]
        self._process = subprocess.Popen(
            [*python, "-m", f"tests.benchmarks.{name}", *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait_until_ready(self) -> Self:
        """Wait for it to begin.

        Raises:
            RuntimeError: it failed.
        """
        if self._line() != "ready\n":
            raise RuntimeError(f"{self._name} did not begin; see its message above")
        return self

    def finish(self) -> Any:
        """Tell it to end; what it found.

        Raises:
            RuntimeError: it failed.
        """
        assert self._process.stdin is not None
        self._process.stdin.close()
        found = self._line()
        if self._process.wait() != 0 or not found:
            raise RuntimeError(f"{self._name} failed; see its message above")
        return json.loads(found)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


def connect(address: str) -> TrainingServiceAsyncStub:
    """A connection of its own to a service."""
    return TrainingServiceStub(own_channel(address))


async def told_to_end() -> None:
    """Within a helper: wait until its standard input ends."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    await reader.read()


def say_ready() -> None:
    """Within a helper: it has begun."""
    print("ready", flush=True)
