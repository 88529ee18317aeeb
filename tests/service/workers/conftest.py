import asyncio
import contextlib
import gc
import os
import resource
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from dropnorm.spec import MLP, Data, Optimization, TrainingSpec
from dropnorm_service.jobs.ports import Launch
from dropnorm_service.training import DatasetCache
from dropnorm_service.workers import DataSettings, ForkServer

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="session", autouse=True)
def _children_find_the_tests() -> Iterator[None]:
    """The fork server is a process of its own, which pytest's `pythonpath` does not reach."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(REPOSITORY), prepend=os.pathsep)
        yield


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def bare_forks() -> AsyncIterator[ForkServer]:
    """A fork server without torch, for children of the tests' own."""
    async with ForkServer(preload=()) as forks:
        yield forks


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def forks() -> AsyncIterator[ForkServer]:
    """The real one. It takes seconds to start, so the tests share it."""
    async with ForkServer() as forks:
        yield forks


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSettings:
    """A data cache that all tests share, as jobs do; what takes long, to read the data first, is done."""
    cache = tmp_path_factory.mktemp("cache")
    DatasetCache(cache).load("digits")
    return DataSettings(cache=cache)


@pytest.fixture
def launch(tmp_path: Path) -> Callable[..., Launch]:
    """Makes launches, each with a folder of its own."""

    def make(
        spec: TrainingSpec | None = None,
        job_id: str = "job",
        attempt: int = 1,
        epochs_told: int = 0,
    ) -> Launch:
        return Launch(
            job_id=job_id,
            attempt=attempt,
            spec=spec or training(),
            folder=tmp_path / job_id,
            epochs_told=epochs_told,
        )

    return make


def training(epochs: int = 2, **parts: object) -> TrainingSpec:
    """A small real training; thousands of epochs are for those that will not be let finish."""
    return TrainingSpec.parse(
        {
            "architecture": MLP(hidden=(16,)),
            "data": Data(dataset="digits"),
            "optimization": Optimization(epochs=epochs, batch_size=128),
            **parts,
        }
    )


@pytest.fixture
def long_computations(monkeypatch: pytest.MonkeyPatch) -> None:
    """However short its heartbeat timeout, a worker may compute for any time, as it does while it warms up."""
    monkeypatch.setattr("dropnorm_service.workers.executor._BUSY_FACTOR", 10_000.0)


async def gone(pid: int) -> bool:
    """Whether a process ends within a while."""
    for _ in range(3000):
        if not alive(pid):
            return True
        await asyncio.sleep(0.02)
    return False


def alive(pid: int) -> bool:
    """Whether a process exists; one that waits to be reaped does not count."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def children_of(pid: int | None) -> set[int]:
    """The children of a process that are not reaped yet."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return {int(child) for child in text.split()}


def threads_of(pid: int) -> int:
    """How many threads a process has."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """This process has no file descriptor left, so it can start nothing."""
    gc.collect()  # not meanwhile: it would let go of some
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    highest = max(int(number) for number in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, before[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        yield
    finally:
        for number in taken:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def logged(caplog: pytest.LogCaptureFixture, text: str) -> None:
    """Wait for a record in the log."""
    for _ in range(1500):
        if text in caplog.text:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"the log never said: {text}")
