"""Which errors mean waiting, and which mean leaving something out."""

from __future__ import annotations

import contextlib
import errno
import sqlite3
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from mlflow import MlflowClient
from mlflow.entities import Param
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED, REQUEST_LIMIT_EXCEEDED
from tests.service.tracking.page import free_port

from dropnorm_service.tracking import TrackingConfig
from dropnorm_service.tracking.errors import MlflowUnavailable
from dropnorm_service.tracking.mirror.guard import Guard, Refused


@pytest.fixture
def guard(client: MlflowClient) -> Guard:
    return Guard(client, patience=3)


def fail(error: Exception) -> None:
    raise error


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
        guard = Guard(away, patience=2)
        for _ in range(5):
            with pytest.raises(MlflowUnavailable, match="runs: "):
                guard("runs", lambda: away.search_runs(["0"]))


def test_a_thing_that_fails_for_ever_while_the_store_answers_is_given_up(guard: Guard):
    for _ in range(2):
        with pytest.raises(MlflowUnavailable):
            guard("files", lambda: fail(OSError("disk full")))
    guard("other files", lambda: None)
    with pytest.raises(Refused, match="files: disk full"):
        guard("files", lambda: fail(OSError("disk full")))
    with pytest.raises(MlflowUnavailable):  # the count begins anew
        guard("files", lambda: fail(OSError("disk full")))


def test_a_success_forgives_earlier_failures(guard: Guard):
    for _ in range(3):
        for _ in range(2):
            with pytest.raises(MlflowUnavailable):
                guard("files", lambda: fail(OSError("disk full")))
        guard("files", lambda: None)


def test_nothing_is_given_up_while_the_store_is_away(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    away = MlflowClient(f"http://127.0.0.1:{free_port()}")
    guard = Guard(away, patience=2)
    for _ in range(5):
        with pytest.raises(MlflowUnavailable, match=r"runs: .*Connection refused"):
            guard("runs", lambda: away.search_runs(["0"]))


def test_nothing_is_given_up_while_the_store_answers_but_takes_no_write(
    guard: Guard, client: MlflowClient, config: TrackingConfig
):
    with contextlib.closing(sqlite3.connect(config.folder / "mlflow.db")) as database:
        database.execute(
            "CREATE TRIGGER no_writes BEFORE INSERT ON experiment_tags"
            " BEGIN SELECT RAISE(ABORT, 'read-only'); END"
        )
        for _ in range(10):
            with pytest.raises(MlflowUnavailable):
                guard("metrics", lambda: fail(OSError("read-only")))
    assert client.search_experiments()


def test_an_outage_that_ends_just_now_is_no_reason_to_give_up(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
):
    guard = Guard(client, patience=2)
    with monkeypatch.context() as away:
        away.setattr(client, "search_experiments", lambda **_: fail(OSError("away")))
        for _ in range(5):
            with pytest.raises(MlflowUnavailable):
                guard("metrics", lambda: fail(OSError("away")))
    with pytest.raises(MlflowUnavailable):  # the call still met the outage, the question did not
        guard("metrics", lambda: fail(OSError("away")))
