"""Jobs, attempts and training, as their journals tell of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from dropnorm.results import (
    Event,
    State,
    StateChanged,
)
from dropnorm_service.jobs import states
from dropnorm_service.jobs.journal import Transition
from dropnorm_service.observability.training import TrainingMetrics

_WAITS = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 24 * 3600, 7 * 24 * 3600)

_REASON = re.compile(r"[A-Z][A-Z0-9_]{0,39}")
_MOST_REASONS = 64
LOSSES = (
    "WORKER_LOST",
    "WORKER_HUNG",
    "NOT_STARTED",
    "DEVICE_ERROR",
    "DATA_UNAVAILABLE",
    "DISK_FULL",
    "IO_ERROR",
    "SERVICE_LOST",
    "INTERNAL",
)
"""Why an attempt can be lost, as the service and its workers say it."""
OTHER = "OTHER"
"""The reason of whatever has one that no label can be made of."""


class JobMetrics:
    """Hears of every change of every job (`JobService.observe`), and counts. No label names a job or a user."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._jobs = Gauge(
            "dropnorm_jobs",
            "Jobs in the store by state, without deleted ones; QUEUED is the length of the queue.",
            ["state"],
            registry=registry,
        )
        for state in State:
            self._jobs.labels(state.name)
        self._accepted = Counter("dropnorm_jobs_accepted", "Jobs accepted.", registry=registry)
        self._ended = Counter(
            "dropnorm_jobs_ended",
            "Jobs that ended, by final state and, where they failed, reason.",
            ["state", "reason"],
            registry=registry,
        )
        self._wait = Histogram(
            "dropnorm_queue_wait_seconds",
            "Seconds that attempts waited in the queue before they began.",
            buckets=_WAITS,
            registry=registry,
        )
        self._started = Counter(
            "dropnorm_attempts_started", "Attempts that began.", registry=registry
        )
        self._lost = Counter(
            "dropnorm_attempts_lost",
            "Attempts that ended by no fault of their job, by reason; another follows, or the job was given up.",
            ["reason"],
            registry=registry,
        )
        # From the start: of a series that begins with 1, an alert sees no increase.
        for reason in LOSSES:
            self._lost.labels(reason)
        self._retried = Counter(
            "dropnorm_attempts_retried",
            "Attempts that were lost and are followed by another, by reason.",
            ["reason"],
            registry=registry,
        )
        self._events = Counter(
            "dropnorm_events", "Events appended to journals, by kind.", ["kind"], registry=registry
        )
        self._training = TrainingMetrics(registry)
        self._queued: dict[str, datetime] = {}
        self._reasons: set[str] = set()

    def begin(self, jobs: Mapping[State, int]) -> None:
        """Take over how many jobs there are; before the first change is heard of."""
        for state, number in jobs.items():
            self._jobs.labels(state.name).set(number)

    def observe(self, transition: Transition) -> None:
        """Count one change."""
        before, after, events, hidden = transition
        if before is not None:
            self._jobs.labels(before.state.name).dec()
        if not hidden:
            self._jobs.labels(after.state.name).inc()
        for event in events:
            self._events.labels(event.payload.kind).inc()
            if isinstance(event.payload, StateChanged):
                self._moved(transition, event, event.payload)
            else:
                self._training.heard(after.id, event)

    def _moved(self, transition: Transition, event: Event, change: StateChanged) -> None:
        before, after = transition.before, transition.after
        reason = "" if change.error is None else self._bounded(change.error.reason)
        queued = self._queued.pop(after.id, None)
        if change.state is State.QUEUED:
            self._queued[after.id] = event.time
            if event.sequence == 1:
                self._accepted.inc()
        elif before is not None and event.attempt > before.attempt:
            since = queued or (before.update_time if before.attempt else before.create_time)
            self._started.inc()
            self._wait.observe(max(0.0, (event.time - since).total_seconds()))
        if states.tells_of_a_loss(change):
            self._lost.labels(reason).inc()
        if reason and change.state is State.QUEUED:
            self._retried.labels(reason).inc()
        if change.state.terminal:
            self._ended.labels(change.state.name, reason).inc()
        if not change.state.active:
            self._training.rest(after.id)

    def _bounded(self, reason: str) -> str:
        """The reason as a label: whatever workers say, there are not more than so many."""
        if reason not in self._reasons:
            if len(self._reasons) >= _MOST_REASONS or not _REASON.fullmatch(reason):
                return OTHER
            self._reasons.add(reason)
        return reason
