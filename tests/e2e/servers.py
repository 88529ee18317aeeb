"""The service as an operator runs it: a process of its own, on a port, with signals."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import grpc
import psutil
from grpc_health.v1 import health_pb2
from tests.chaos import promises
from tests.e2e.slowed import SLOW
from tests.ports import free_port

import dropnorm as dn
from dropnorm.results import Event, Payload, State, StateChanged

T = TypeVar("T")
AnyPayload = TypeVar("AnyPayload", bound=Payload)

PATIENCE = 120.0
"""Seconds after which a test gives up what should have come long before, also on a crowded machine."""

MIRROR_PATIENCE = 300.0
"""Likewise for what MLflow is to have: what writes it loads MLflow and torch first, and gives way to all else."""

_SERVICE = "dropnorm_service"


class Below(NamedTuple):
    """A process that a server has started, or one of its processes."""

    pid: int
    parent: int
    command: str


class Server:
    """`python -m dropnorm_service` on a data folder; it can be ended and started again.

    Args:
        data_dir: the folder.
        flags: further flags.
        module: run instead, when it is a service with other workers.
    """

    def __init__(self, data_dir: Path, *flags: str, module: str = _SERVICE) -> None:
        self.data_dir = data_dir
        self.port = free_port()
        self.said: dict[str, str] = {}
        """What it printed when it began to serve."""
        self._flags = flags
        self._module = module
        self._process: subprocess.Popen[str] | None = None

    @property
    def address(self) -> str:
        """Where it listens, after a restart too."""
        return f"127.0.0.1:{self.port}"

    @property
    def process(self) -> subprocess.Popen[str]:
        assert self._process is not None, "the server was never started"
        return self._process

    @property
    def log(self) -> str:
        return (self.data_dir / "service.log").read_text()

    def start(self) -> Server:
        self.data_dir.mkdir(exist_ok=True)
        with (self.data_dir / "service.log").open("a") as log:
            self._process = subprocess.Popen(
                command(
                    *("--data-dir", self.data_dir, "--port", self.port, *self._flags),
                    module=self._module,
                ),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self.log
        self.said = json.loads(line)
        assert self.said["event"] == "serving"
        assert self.said["address"] == self.address
        return self

    def client(self) -> dn.Client:
        return dn.Client(self.address)

    def stop(self) -> int:
        """End it in good order; its exit status."""
        self.process.terminate()
        return self.wait()

    def kill(self) -> None:
        self.process.kill()
        self.wait()

    def wait(self) -> int:
        status = self.process.wait(PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status

    def end(self) -> None:
        """Leave nothing behind, whatever the test did."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self.wait()

    def fork_server(self) -> int:
        """The process that forks workers."""
        [forks] = [
            each.pid
            for each in self._below()
            if each.parent == self.process.pid and "forkserver" in each.command
        ]
        return forks

    def workers(self) -> list[int]:
        """The processes that could be running a job: those the fork server has forked, in order of their start."""
        forks = self.fork_server()
        return [each.pid for each in self._below() if each.parent == forks]

    def _below(self) -> list[Below]:
        found = []
        for each in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # it has ended since it was listed
                found.append(Below(each.pid, each.ppid(), " ".join(each.cmdline())))
        return found

    def worker_of(self, job: dn.JobHandle) -> int:
        """The process that has a job's folder; the job has come as far as an epoch."""
        return int((self.data_dir / "jobs" / job.id / "lock").read_text())

    def memory(self) -> int:
        """Bytes that the server and its processes hold, each for itself; not those that write to MLflow, which come and
        go when jobs have ended."""
        server = psutil.Process(self.process.pid)
        held = 0
        for process in (server, *server.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):  # it has ended since it was listed
                if "tracking.mirror" not in " ".join(process.cmdline()):
                    held += process.memory_full_info().uss  # forks share most of theirs
        return held

    def health(self, service: str = "") -> str:
        """What the standard health service says of a service, or of all."""
        with grpc.insecure_channel(self.address) as channel:
            check = channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                health_pb2.HealthCheckRequest.SerializeToString,
                health_pb2.HealthCheckResponse.FromString,
            )
            request = health_pb2.HealthCheckRequest(service=service)
            reply = check(request, timeout=PATIENCE)
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status))


class SlowedServer(Server):
    """Its trainings are slow when a test wants them to be.

    So no job comes to its end before the test has done to it what it is about, however long the test is kept from it.
    """

    def __init__(self, data_dir: Path, *flags: str) -> None:
        super().__init__(data_dir, *flags, module="tests.e2e.slowed")

    def slow_down(self, after: int) -> None:
        """From now on no attempt makes more than so many epochs at full speed."""
        self.data_dir.mkdir(exist_ok=True)
        (self.data_dir / SLOW).write_text(str(after))

    def speed_up(self) -> None:
        """From now on none is slow."""
        (self.data_dir / SLOW).unlink()

    @contextlib.contextmanager
    def slow(self, after: int) -> Iterator[None]:
        """Slow within the block."""
        self.slow_down(after)
        try:
            yield
        finally:
            self.speed_up()


def ended(pids: Iterable[int]) -> bool:
    """Whether none of some processes runs any more; one that nobody has reaped yet does not."""
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                return False
    return True


def newest_checkpoint(job_folder: Path) -> int:
    """The number of the newest checkpoint of a job."""
    return max(int(each.stem) for each in (job_folder / "checkpoints").glob("*.json"))


def seconds_computed(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    return sum(psutil.Process(pid).cpu_times()[:2])


def own_channel(address: str) -> grpc.aio.Channel:
    """A connection of its own; channels to one address share one unless told otherwise."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.insecure_channel(address, options=options)


def command(*arguments: object, module: str = _SERVICE) -> Sequence[str]:
    """The command line of a service that does not outlive the tests."""
    return [
        sys.executable,
        *("-m", module, "--exit-with-parent"),
        *map(str, arguments),
    ]


def refusal(*flags: object) -> tuple[int, str]:
    """The exit status of a service that must not start, and what it says."""
    done = subprocess.run(
        command("--port", 0, *flags), check=False, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.stdout == "", "it never said that it serves"
    said = [line for line in done.stderr.splitlines() if line.startswith("dropnorm serve: ")]
    assert len(said) == 1, done.stderr
    return done.returncode, said[0]


def eventually(probe: Callable[[], T | None], what: str, *, within: float = PATIENCE) -> T:
    """The first value of `probe` that is true."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if value := probe():
            return value
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {within:g} s")


def after_epoch(job: dn.JobHandle, epoch: int = 1, attempt: int = 1) -> Event:
    """Wait until a job, in an attempt or a later one, has come so far that something would be lost with it."""
    for event in job.watch():
        if event.attempt < attempt or not isinstance(event.payload, dn.EpochCompleted):
            continue
        if event.payload.metrics.epoch >= epoch:
            return event
    raise AssertionError(f"{job.name} ended before epoch {epoch} of attempt {attempt}")


def first(
    job: dn.JobHandle,
    kind: type[AnyPayload],
    when: Callable[[AnyPayload], bool] = lambda _: True,
) -> Event:
    """The first event of a kind in a job's journal; waits for it."""
    for event in job.watch():
        if isinstance(event.payload, kind) and when(event.payload):
            return event
    raise AssertionError(f"the journal of {job.name} ended without {kind.__name__}")


def states(events: Sequence[Event]) -> list[State]:
    return [event.payload.state for event in events if isinstance(event.payload, StateChanged)]


def check_journal(events: Sequence[Event]) -> None:
    """Numbered from 1 without a gap, attempts and the epochs of each only go forward, no epoch is left out, one result
    at most."""
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    attempts = [event.attempt for event in events]
    assert attempts == sorted(attempts)
    for attempt in set(attempts):
        epochs = [
            event.payload.metrics.epoch
            for event in events
            if event.attempt == attempt and isinstance(event.payload, dn.EpochCompleted)
        ]
        assert epochs == list(range(epochs[0], epochs[-1] + 1)) if epochs else True
    told = promises.epochs_done(events)
    assert told == set(range(1, len(told) + 1)), "an epoch is left out"
    assert sum(event.kind == "evaluation" for event in events) <= 1


def spec(dataset: str = "digits", **optimization: Any) -> dn.TrainingSpec:
    """A small real training."""
    return dn.TrainingSpec(
        architecture=dn.MLP(hidden=(32,)),
        regularization=dn.Regularization(dropout=dn.Dropout(rate=0.2)),
        optimization=dn.Optimization(**{"epochs": 3, "batch_size": 64} | optimization),
        data=dn.Data(dataset=dataset),
        seed=7,
    )


def long(epochs: int = 100_000) -> dn.TrainingSpec:
    """A training that the test will not let finish."""
    return spec(epochs=epochs, batch_size=32)
