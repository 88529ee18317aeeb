"""Traces, from a client's call through the queue and the attempts into the worker, by OpenTelemetry.

The only module that knows it; it is loaded when an endpoint is set, and not otherwise.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import dropnorm
from dropnorm.results import Event, StateChanged
from dropnorm_service.api.observers import Ended, Headers
from dropnorm_service.jobs.journal import Transition
from dropnorm_service.jobs.ports import Broken, Launch, Lost, Outcome
from dropnorm_service.workers.messages import Span

_FILE = "traceparent"
_HEADER = "traceparent"
_MOST_LINKS = 64
_PATIENCE = 5.0
_SCOPE = InstrumentationScope("dropnorm", dropnorm.__version__)
_PROBES = "/grpc.health."  # asked for every few seconds by whatever watches over the service
_SERVERS_FAULT = frozenset({"INTERNAL", "UNKNOWN", "UNAVAILABLE", "DATA_LOSS", "DEADLINE_EXCEEDED"})
_MICROSECOND = 1000

_propagator = TraceContextTextMapPropagator()

log = logging.getLogger(__name__)


class Tracing:
    """Makes spans of what happens, and sends them in the background. What cannot be sent is dropped.

    Implements `api.observers.CallObserver` and `workers.spans.AttemptTraces`.

    Args:
        endpoint: URL of an OTLP collector that speaks gRPC, `http://host:4317`, or https.
        folder_of: a job's own folder, by its id; the context of its trace is kept there, for the next service.
    """

    def __init__(self, endpoint: str, folder_of: Callable[[str], Path]) -> None:
        # Its own records repeat themselves for as long as a collector is away.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        resource = Resource.create(
            {"service.name": "dropnorm", "service.version": dropnorm.__version__}
        )
        self._worker = Resource.create(
            {"service.name": "dropnorm-worker", "service.version": dropnorm.__version__}
        )
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._processor = BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint))
        self._provider.add_span_processor(self._processor)
        self._tracer = self._provider.get_tracer(_SCOPE.name, _SCOPE.version)
        self._folder_of = folder_of
        self._jobs: dict[str, str] = {}
        self._attempts: dict[tuple[str, int], trace.Span] = {}
        log.info("traces go to %s", endpoint)

    # Calls.

    def began(self, method: str, headers: Headers, *, lasting: bool) -> Ended:
        """See `CallObserver.began`."""
        if method.startswith(_PROBES):
            return lambda _: None
        given = headers.get(_HEADER, "")
        carrier = {_HEADER: given} if isinstance(given, str) else {}
        service, _, name = method[1:].rpartition("/")
        span = self._tracer.start_span(
            method[1:],
            context=_propagator.extract(carrier),
            kind=SpanKind.SERVER,
            attributes={"rpc.system": "grpc", "rpc.service": service, "rpc.method": name},
        )
        # Never detached: the call has a task of its own, and its variables end with it.
        contexts.attach(trace.set_span_in_context(span))

        def ended(code: str) -> None:
            span.set_attribute("rpc.grpc.status_code", code)
            if code in _SERVERS_FAULT:
                span.set_status(Status(StatusCode.ERROR, code))
            span.end()

        return ended

    def unknown(self) -> None:
        """See `CallObserver.unknown`."""

    def received(self, size: int) -> None:
        """See `CallObserver.received`."""

    # Jobs.

    def observe(self, transition: Transition) -> None:
        """Hear of a change of a job (`JobService.observe`)."""
        job = transition.after
        for event in transition.events:
            if not isinstance(event.payload, StateChanged):
                continue
            if event.sequence == 1:
                self._remember(job.id)
            elif transition.before is not None and event.attempt > transition.before.attempt:
                since = transition.before.update_time
                span = self._tracer.start_span(
                    "queued",
                    context=self._context_of(job.id),
                    start_time=_nanoseconds(since.timestamp()),
                    attributes={"dropnorm.job": job.id, "dropnorm.attempt": event.attempt},
                )
                span.end(_nanoseconds(max(since, event.time).timestamp()))
        if job.state.terminal:
            self._jobs.pop(job.id, None)

    def _remember(self, job_id: str) -> None:
        """Keep the context of the call that made a job; its variables are those of this function too."""
        carrier: dict[str, str] = {}
        _propagator.inject(carrier)
        if context := carrier.get(_HEADER):
            self._jobs[job_id] = context
            with contextlib.suppress(OSError):  # a trace in two parts is all that is lost
                folder = self._folder_of(job_id)
                folder.mkdir(parents=True, exist_ok=True)
                (folder / _FILE).write_text(context, encoding="ascii")

    def _context_of(self, job_id: str) -> Context:
        """The context of a job's trace; one without a parent for a job that was made without tracing."""
        known = self._jobs.get(job_id)
        if known is None:
            # Not kept: it may be asked for after the job's end, and then nothing would take it away any more.
            with contextlib.suppress(OSError, UnicodeDecodeError):
                known = (self._folder_of(job_id) / _FILE).read_text(encoding="ascii")
        return _propagator.extract({_HEADER: known} if known else {}, context=Context())

    # Attempts.

    def begin(self, launch: Launch) -> str | None:
        """See `AttemptTraces.begin`."""
        span = self._tracer.start_span(
            "attempt",
            context=self._context_of(launch.job_id),
            attributes={"dropnorm.job": launch.job_id, "dropnorm.attempt": launch.attempt},
        )
        self._attempts[launch.job_id, launch.attempt] = span
        if not span.is_recording():
            return None
        carrier: dict[str, str] = {}
        _propagator.inject(carrier, context=trace.set_span_in_context(span, Context()))
        return carrier[_HEADER]

    def take(self, span: Span) -> None:
        """See `AttemptTraces.take`."""
        self._processor.on_end(
            ReadableSpan(
                name=span.name,
                context=_span_context(span.trace_id, span.span_id),
                parent=_span_context(span.trace_id, span.parent_id),
                resource=self._worker,
                attributes=dict(span.attributes),
                kind=SpanKind.INTERNAL,
                status=Status(StatusCode.ERROR, span.error) if span.error else Status(),
                start_time=span.start_ns,
                end_time=span.end_ns,
                instrumentation_scope=_SCOPE,
            )
        )

    def end(self, launch: Launch, outcome: Outcome | None) -> None:
        """See `AttemptTraces.end`."""
        span = self._attempts.pop((launch.job_id, launch.attempt))
        span.set_attribute("dropnorm.outcome", type(outcome).__name__ if outcome else "Abandoned")
        if isinstance(outcome, Broken | Lost):
            span.set_status(Status(StatusCode.ERROR, outcome.error.reason))
        span.end()

    # The mirror.

    @contextmanager
    def delivering(self, mirror: str, events: Sequence[Event]) -> Iterator[None]:
        """Within it events are written to MLflow; the span has links to the traces of their jobs."""
        jobs = dict.fromkeys(event.training_job.rpartition("/")[2] for event in events)
        spans = [
            trace.get_current_span(self._context_of(job)).get_span_context()
            for job in list(jobs)[:_MOST_LINKS]
        ]
        with self._tracer.start_as_current_span(
            "mirror",
            context=Context(),
            kind=SpanKind.CONSUMER,
            links=[Link(each) for each in spans if each.is_valid],
            attributes={"dropnorm.mirror": mirror, "dropnorm.events": len(events)},
        ):
            yield

    def close(self) -> None:
        """Send what is there, for some seconds at most."""
        for span in self._attempts.values():
            span.end()
        # A thread of its own, since a collector that is away may hold it up for longer than the service has.
        closing = threading.Thread(target=self._provider.shutdown, daemon=True, name="traces")
        closing.start()
        closing.join(_PATIENCE)


def _span_context(trace_id: str, span_id: str) -> SpanContext:
    flags = TraceFlags(TraceFlags.SAMPLED)
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=flags)


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e6) * _MICROSECOND
