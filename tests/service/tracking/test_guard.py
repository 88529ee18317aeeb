"""Which errors mean waiting, and which mean leaving something out."""

from __future__ import annotations

import contextlib
import errno
import itertools
import sqlite3
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from mlflow import MlflowClient
from mlflow.entities import Param
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED, REQUEST_LIMIT_EXCEEDED
from tests.ports import free_port

from dropnorm_service.tracking import TrackingConfig
from dropnorm_service.tracking.errors import MlflowUnavailable, NotTaken
from dropnorm_service.tracking.mirror.guard import Guard, Refused

HOUR = 3600.0


class Clock:
    """Goes on when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def guard(client: MlflowClient, clock: Clock) -> Guard:
    return Guard(client, clock=clock)


def fails(guard: Guard, what: str, times: int = 1) -> None:
    """The thing is tried so often and not taken."""
    for _ in range(times):
        with pytest.raises(NotTaken):
            guard(what, lambda: fail(OSError("away")))


def fail(error: Exception) -> None:
    raise error


def hours() -> Callable[[], float]:
    """A clock on which an hour passes from one look to the next."""
    times = itertools.count(0.0, HOUR)
    return lambda: next(times)


@contextlib.contextmanager
def answering(status: int, body: str) -> Iterator[str]:
    """URL of a server that answers everything alike."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        do_GET = do_POST

        def log_message(self, format: str, *args: object) -> None:
            """It is expected to be asked."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_result_comes_through(guard: Guard):
    assert guard("sum", lambda: 1 + 1) == 2


def test_what_the_store_refuses_is_left_out_at_once(guard: Guard, client: MlflowClient):
    with pytest.raises(Refused, match=r"parameters of a job: Run with id=.* not found"):
        guard("parameters of a job", lambda: client.log_batch("a" * 32, params=[Param("a", "b")]))


def test_a_full_disk_is_waited_out_however_long_it_takes(guard: Guard):
    for error in (
        OSError(errno.ENOSPC, "No space left on device"),
        MlflowException("(sqlite3.OperationalError) database or disk is full"),
    ):
        for _ in range(10):
            with pytest.raises(MlflowUnavailable):
                guard("metrics", partial(fail, error))


@pytest.mark.parametrize("code", [PERMISSION_DENIED, REQUEST_LIMIT_EXCEEDED])
def test_wrong_credentials_and_overload_are_waited_out(guard: Guard, code: int):
    with pytest.raises(MlflowUnavailable):
        guard("anything", lambda: fail(MlflowException("not now", code)))


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, "404 page not found\n"),
        (400, "<html>Bad Request</html>"),
        (404, '{"error_code": 404, "message": "no backend"}'),
        (404, '{"error": "default backend"}'),
    ],
)
def test_what_a_proxy_says_while_mlflow_is_away_is_no_refusal(
    status: int, body: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with answering(status, body) as url:
        away = MlflowClient(url)
        guard = Guard(away, clock=hours())
        for _ in range(25):
            with pytest.raises(MlflowUnavailable, match="runs: "):
                guard("runs", lambda: away.search_runs(["0"]))


def test_a_thing_that_fails_for_ever_while_the_store_answers_is_given_up(
    guard: Guard, clock: Clock
):
    fails(guard, "files", times=50)
    clock.now += 3 * HOUR
    guard("other files", lambda: None)
    # What is given up is given up at once when it comes again: it comes with others, which may have to wait.
    for _ in range(3):
        with pytest.raises(Refused, match="files: away"):
            guard("files", lambda: fail(OSError("away")))
    guard("files", lambda: None)
    fails(guard, "files")


def test_files_that_are_away_for_an_hour_are_not_given_up(guard: Guard, clock: Clock):
    """As when the store of files has an outage of its own."""
    for _ in range(120):
        fails(guard, "files")
        clock.now += HOUR / 120
    guard("files", lambda: None)


def test_two_outages_with_a_long_time_between_them_are_no_reason_to_give_up(
    guard: Guard, clock: Clock
):
    fails(guard, "files", times=3)
    clock.now += 12 * HOUR
    fails(guard, "files", times=3)


def test_a_success_forgives_earlier_failures(guard: Guard, clock: Clock):
    for _ in range(3):
        fails(guard, "files", times=30)
        guard("files", lambda: None)
        clock.now += 3 * HOUR


def test_nothing_is_given_up_while_the_store_is_away(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    away = MlflowClient(f"http://127.0.0.1:{free_port()}")
    guard = Guard(away, clock=hours())
    for _ in range(30):
        with pytest.raises(MlflowUnavailable, match=r"runs: .*Connection refused"):
            guard("runs", lambda: away.search_runs(["0"]))


def test_nothing_is_given_up_while_the_store_answers_but_takes_no_write(
    guard: Guard, clock: Clock, client: MlflowClient, config: TrackingConfig
):
    with contextlib.closing(sqlite3.connect(config.folder / "mlflow.db")) as database:
        database.execute(
            "CREATE TRIGGER no_writes BEFORE INSERT ON experiment_tags"
            " BEGIN SELECT RAISE(ABORT, 'read-only'); END"
        )
        for _ in range(30):
            with pytest.raises(MlflowUnavailable):
                guard("metrics", lambda: fail(OSError("read-only")))
            clock.now += HOUR
    assert client.search_experiments()


def test_an_outage_that_ends_just_now_is_no_reason_to_give_up(
    guard: Guard, clock: Clock, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as away:
        away.setattr(client, "search_experiments", lambda **_: fail(OSError("away")))
        for _ in range(30):
            with pytest.raises(MlflowUnavailable):
                guard("metrics", lambda: fail(OSError("away")))
            clock.now += HOUR
    fails(guard, "metrics")  # the call still met the outage, the question did not
