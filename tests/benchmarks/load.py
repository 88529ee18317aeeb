"""Two hundred queued jobs, twenty submitting clients and five hundred watchers, and how the service answers meanwhile.

Watchers, submitting clients, and who measures are processes of their own. The running jobs tell of an epoch and of
their progress every second, each to its share of the watchers; each client submits and cancels a job a second;
GetTrainingJob is called a hundred times a second. That is a service which hundreds of people look at all the time.

It is measured with workers that leave the CPU alone, as they do when they train on GPUs (`paced`), and with a worker
that computes all the time on the cores which the service and everybody else here share.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from tests.benchmarks.calls import echo_server
from tests.benchmarks.helpers import Helper
from tests.benchmarks.rows import Row
from tests.benchmarks.services import DIGITS, wait_until_running
from tests.e2e.servers import Server

import dropnorm as dn

_WATCHERS = 500
_CLIENTS = 20
_QUEUED = 200
_SUBMIT_SECONDS = 1.0
_P99 = 0.050
_MEMORY_MIB = 200
_SLOTS = 4
_SECONDS = 15.0
_ROUNDS, _QUICK_ROUNDS = 3, 1
_STANDING_BACK = 10

_ENDLESS = 100_000
_PACED = DIGITS.model_copy(update={"optimization": dn.Optimization(epochs=_ENDLESS, batch_size=64)})
# An epoch takes about a second.
_COMPUTING = DIGITS.model_copy(
    update={
        "architecture": dn.MLP(hidden=(512, 512)),
        "optimization": dn.Optimization(epochs=_ENDLESS, batch_size=4),
    }
)


class _Found(NamedTuple):
    """What was found."""

    watched: Sequence[list[int]]
    """The sequence numbers that each watcher got."""
    lasts: Sequence[int]
    """Number of the last event of each watched job."""
    submitting: dict[str, Any]
    probing: Sequence[dict[str, Any]]
    """One for each round."""
    memory: Sequence[float]
    """The server's in MiB: before the watchers came, at its highest, and after they had gone."""


def measure(quick: bool) -> Iterator[Row]:
    """Both ways, one after the other."""
    rounds = _QUICK_ROUNDS if quick else _ROUNDS
    with _service("tests.benchmarks.paced", _SLOTS) as server:
        yield from _rows("workers that wait", _load(server, _PACED, _SLOTS, rounds))
    with _service("dropnorm_service", 1) as server:
        yield from _rows("a worker that computes", _load(server, _COMPUTING, 1, rounds))


@contextmanager
def _service(module: str, slots: int) -> Iterator[Server]:
    flags = ("--cpu-slots", str(slots), "--gpus", "0", "--no-tracking")
    with tempfile.TemporaryDirectory(prefix="dropnorm-bench-") as folder:
        server = Server(Path(folder, "data"), *flags, module=module)
        try:
            yield server.start()
            server.stop()  # with its workers, which write to the folder
        finally:
            server.end()


def _load(server: Server, spec: dn.TrainingSpec, jobs: int, rounds: int) -> _Found:
    resident = psutil.Process(server.process.pid).memory_info
    with server.client() as client, ExitStack() as stack:

        def helper(name: str, *arguments: object, niceness: int = _STANDING_BACK) -> Helper:
            started = Helper(name, server.address, *arguments, niceness=niceness)
            return stack.enter_context(started).wait_until_ready()

        running = [client.train(spec, priority=1000) for _ in range(jobs)]
        for job in running:
            wait_until_running(job)
        submitting = helper("submitting", _CLIENTS, _QUEUED // _CLIENTS, _SUBMIT_SECONDS)
        memory = [resident().rss]
        watching = helper("watching", _WATCHERS, *(job.name for job in running))
        echo_address = stack.enter_context(echo_server())
        probed = []
        for _ in range(rounds):
            probing = helper("probing", echo_address, _CLIENTS, _QUEUED // _CLIENTS, niceness=0)
            time.sleep(_SECONDS)
            probed.append(probing.finish())
            memory.append(resident().rss)
        submitted = submitting.finish()
        for job in running:
            job.cancel()
        watched = watching.finish()
        lasts = [job.refresh().snapshot.last_sequence for job in running]
        memory.append(resident().rss)
        return _Found(watched, lasts, submitted, probed, [each / 2**20 for each in memory])


def _rows(how: str, found: _Found) -> Iterator[Row]:
    title = f"{_QUEUED} queued, {_CLIENTS} submitting, {_WATCHERS} watching, {how}"
    yield _answers(title, found)
    yield _latency(title, found)
    before, *during, after = found.memory
    yield Row(
        f"{title}: the server's memory",
        f"{before:.0f} MiB before the watchers, {max(during):.0f} with them, {after:.0f} after",
        f"<= {_MEMORY_MIB} MiB",
        max(during) <= _MEMORY_MIB,
        "resident set of the server process",
    )


def _answers(title: str, found: _Found) -> Row:
    lasts = [found.lasts[number % len(found.lasts)] for number in range(len(found.watched))]
    whole = sum(
        seen == list(range(1, last + 1)) for seen, last in zip(found.watched, lasts, strict=True)
    )
    problems = [*found.submitting["wrong"]]
    for probed in found.probing:
        problems += probed["wrong"]
    gets = sum(len(probed["seconds"]) for probed in found.probing)
    creates = len(found.submitting["seconds"])
    return Row(
        f"{title}: answers",
        f"{whole} of {len(found.watched)} watchers with every event once, {len(problems)} wrong answers",
        "all, none",
        whole == _WATCHERS and not problems,
        f"{sum(map(len, found.watched)):,} events told, {gets:,} Get, {creates:,} Create and Cancel"
        f"{'; '.join(['', *problems[:3]])}",
    )


def _latency(title: str, found: _Found) -> Row:
    rounds = [probed["seconds"] for probed in found.probing]
    p99 = [_percentile(seconds, 99) for seconds in rounds]
    echoes = [_percentile(probed["echo"], 99) for probed in found.probing]
    together = [each for seconds in rounds for each in seconds]
    return Row(
        f"{title}: GetTrainingJob",
        f"p99 {_milliseconds(p99)}",
        f"p99 < {1e3 * _P99:.0f} ms",
        statistics.median(p99) < _P99,
        f"{_summary(together)}; a bare echo beside it p99 {_milliseconds(echoes)}; "
        f"CreateTrainingJob {_summary(found.submitting['seconds'])}",
    )


def _percentile(values: Sequence[float], number: int) -> float:
    return statistics.quantiles(values, n=100)[number - 1]


def _milliseconds(seconds: Sequence[float]) -> str:
    """The median of some rounds, and each."""
    each = ", ".join(f"{1e3 * value:.1f}" for value in seconds)
    return f"{1e3 * statistics.median(seconds):.1f} ms (rounds: {each})"


def _summary(seconds: Sequence[float]) -> str:
    parts = [f"p{number} {1e3 * _percentile(seconds, number):.1f}" for number in (50, 95, 99)]
    return f"{', '.join(parts)}, at most {1e3 * max(seconds):.0f} ms"
