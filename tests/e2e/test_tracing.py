"""Traces, as a real collector gets them over OTLP: one from the client's call to the epochs in the worker."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.trace import SpanContext, TraceFlags
from tests.e2e.conftest import SMALL
from tests.e2e.servers import Server, after_epoch, command, eventually, long, spec

from dropnorm.results import State

TRACE = 0x4BF92F3577B34DA6A3CE929D0E0E4736
CLIENT = 0x00F067AA0BA902B7


class Collector(TraceServiceServicer):
    """Keeps every span, with the name of the service that made it."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Any]] = []
        self._server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
        add_TraceServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        self._lock = threading.Lock()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def Export(self, request: ExportTraceServiceRequest, context: Any) -> Any:
        with self._lock:
            for resource in request.resource_spans:
                service = attributes(resource.resource)["service.name"]
                for scope in resource.scope_spans:
                    self.spans += [(service, span) for span in scope.spans]
        return ExportTraceServiceResponse()

    def of(self, trace_id: int) -> list[tuple[str, Any]]:
        with self._lock:
            return [
                (service, span)
                for service, span in self.spans
                if int.from_bytes(span.trace_id, "big") == trace_id
            ]

    def stop(self) -> None:
        self._server.stop(None).wait()


def attributes(thing: Any) -> dict[str, Any]:
    values = {each.key: each.value for each in thing.attributes}
    return {key: getattr(value, value.WhichOneof("value")) for key, value in values.items()}


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.stop()


@pytest.fixture
def within_a_trace() -> Iterator[None]:
    """The test is a program that traces itself, and in the middle of a span."""
    current = SpanContext(TRACE, CLIENT, is_remote=False, trace_flags=TraceFlags(1))
    token = contexts.attach(trace.set_span_in_context(trace.NonRecordingSpan(current)))
    yield
    contexts.detach(token)


@pytest.mark.usefixtures("within_a_trace")
def test_one_trace_leads_from_the_clients_call_to_the_epochs_in_the_worker(
    collector: Collector, tmp_path: Path
) -> None:
    server = Server(tmp_path / "data", *SMALL, "--tracing-endpoint", collector.endpoint).start()
    try:
        with server.client() as client:
            job = client.train(spec(), job_id="traced")
            job.result()
            eventually(lambda: job.refresh().mlflow_run_id, "the mirror")
        assert server.stop() == 0
    finally:
        server.end()

    spans = {span.span_id: (service, span) for service, span in collector.of(TRACE)}
    roots = {span.name for _, span in spans.values() if span.parent_span_id not in spans}
    assert all(
        name.startswith("dropnorm.v1.") for name in roots
    )  # the client's own is not sent here

    def path(span: Any) -> list[str]:
        above = spans.get(span.parent_span_id)
        return [*(path(above[1]) if above else []), span.name]

    paths = {tuple(path(span)) for _, span in spans.values()}
    create = "dropnorm.v1.TrainingService/CreateTrainingJob"
    assert (create, "queued") in paths
    for phase in ("loading_data", "building", "epoch", "testing", "saving"):
        assert (create, "attempt", phase) in paths
    assert (create, "attempt", "epoch", "training") in paths
    assert (create, "attempt", "epoch", "validating") in paths

    epochs = [(service, span) for service, span in spans.values() if span.name == "epoch"]
    assert [attributes(span)["epoch"] for _, span in epochs] == [1, 2, 3]
    assert {service for service, _ in epochs} == {"dropnorm-worker"}
    [attempt] = [span for _, span in spans.values() if span.name == "attempt"]
    assert attributes(attempt)["dropnorm.outcome"] == "Finished"
    for _, span in epochs:
        assert attempt.start_time_unix_nano <= span.start_time_unix_nano
        assert span.end_time_unix_nano <= attempt.end_time_unix_nano

    mirrored = [span for _, span in collector.spans if span.name == "mirror"]
    linked = {link.trace_id for span in mirrored for link in span.links}
    assert linked == {attempt.trace_id}


@pytest.mark.usefixtures("within_a_trace")
def test_the_trace_goes_on_after_the_service_was_killed_and_a_worker_was_lost(
    collector: Collector, make_server: Callable[..., Server]
) -> None:
    server = make_server("--tracing-endpoint", collector.endpoint).start()
    with server.client() as client:
        job = client.train(long(), job_id="traced")
        after_epoch(job)
        server.kill()
        server.start()
        eventually(lambda: job.refresh().snapshot.attempt == 2 and job.state is State.RUNNING, "2")
        job.cancel()
        eventually(lambda: job.refresh().state is State.CANCELLED, "the end")
    server.stop()
    attempts = [span for _, span in collector.of(TRACE) if span.name == "attempt"]
    assert [attributes(span)["dropnorm.attempt"] for span in attempts] == [2]
    assert attributes(attempts[0])["dropnorm.outcome"] == "Stopped"


def test_a_collector_that_is_away_disturbs_nobody(
    make_server: Callable[..., Server], collector: Collector
) -> None:
    endpoint = collector.endpoint
    collector.stop()
    server = make_server("--tracing-endpoint", endpoint).start()
    with server.client() as client:
        client.train(spec()).result()
    assert server.stop() == 0
    assert "opentelemetry" not in server.log


def test_an_endpoint_that_is_none_and_libraries_that_are_missing_are_sentences(
    tmp_path: Path,
) -> None:
    def said(endpoint: str, *interpreter: str) -> str:
        arguments = command("--data-dir", tmp_path, *SMALL, "--tracing-endpoint", endpoint)
        start = [sys.executable, *(interpreter or arguments[1:3])]
        run = subprocess.run([*start, *arguments[3:]], capture_output=True, text=True, timeout=120)
        assert run.returncode == 2
        return run.stderr

    assert "tracing_endpoint: a collector is http://host:port" in said("localhost:4317")
    without = (
        "import sys; sys.modules['opentelemetry'] = None; "
        "from dropnorm_service.__main__ import main; sys.exit(main())"
    )
    missing = said("http://127.0.0.1:4317", "-c", without)
    assert (
        "traces need opentelemetry, which is not installed: pip install 'dropnorm[tracing]'"
        in missing
    )
