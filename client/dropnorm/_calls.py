"""The half that Client and AsyncClient share: requests, replies, deadlines, retries. No input or output."""

from __future__ import annotations

import random
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import grpc
from google.protobuf import field_mask_pb2
from google.protobuf.message import Message
from pydantic import ValidationError

from dropnorm import wire
from dropnorm._arguments import request, seconds, spec_problems, unfit
from dropnorm.errors import InvalidRequest, from_rpc_error, retry_after
from dropnorm.results import Plan, TrainingJob, Worker
from dropnorm.spec import Submission, TrainingSpec
from dropnorm.spec._base import problems_of
from dropnorm.v1 import (
    dataset_service_pb2_grpc,
    model_service_pb2_grpc,
    plan_pb2,
    training_job_pb2,
    training_service_pb2,
    training_service_pb2_grpc,
    training_spec_pb2,
)

DEFAULT_TIMEOUT = 30.0
DEFAULT_PATIENCE = 60.0

Result = TypeVar("Result")
Page = tuple[tuple[Result, ...], str]
Metadata = tuple[tuple[str, str], ...]

SHARED = field_mask_pb2.FieldMask(paths=["shared"])
"""What sharing changes of a resource."""


def methods(channel: Any, metadata: Metadata) -> Mapping[str, Any]:
    """Every rpc of the contract by its name, on a channel of either kind; each call carries the metadata."""
    stubs = (
        training_service_pb2_grpc.TrainingServiceStub(channel),
        dataset_service_pb2_grpc.DatasetServiceStub(channel),
        model_service_pb2_grpc.ModelServiceStub(channel),
    )
    return {
        name: _carrying(method, metadata) for stub in stubs for name, method in vars(stub).items()
    }


def _carrying(method: Any, metadata: Metadata) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        return method(*arguments, metadata=metadata + _trace(), **options)

    return call


def _trace() -> Metadata:
    """The trace that the program is in, where it traces itself with OpenTelemetry: the service goes on with it."""
    if "opentelemetry.trace" not in sys.modules:
        return ()
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return tuple(carrier.items())


@dataclass(frozen=True, kw_only=True)
class Call(Generic[Result]):
    """One unary call: which method, what it is asked, and how its reply is read."""

    method: str
    request: Message
    read: Callable[[Any], Result]
    repeatable: bool = True
    """Whether asking twice does no more than asking once, so that a lost connection may be answered by a retry."""


class Attempts:
    """Deadline and retries of one call.

    After UNAVAILABLE a few with jittered exponential back-off (AIP-194); where the service says when to try again, as
    it does where a limit is met or its store is away, as often as there is time for it.
    """

    LIMIT = 5
    FIRST_PAUSE = 0.1
    LONGEST_PAUSE = 2.0

    def __init__(self, call: Call[Any], *, address: str, timeout: float) -> None:
        self._repeatable = call.repeatable
        self._address = address
        limit = seconds("timeout", timeout)
        self._deadline = None if limit is None else time.monotonic() + limit
        self._made = 0

    @property
    def timeout(self) -> float | None:
        """Seconds left for the next attempt; None: no limit."""
        return None if self._deadline is None else max(self._deadline - time.monotonic(), 0.0)

    def pause_after(self, error: grpc.RpcError) -> float:
        """Seconds to wait before the next attempt.

        Raises:
            DropnormError: there is no next attempt.
        """
        told = retry_after(error)
        if told is not None:
            pause = spread(told)
        else:
            self._made += 1
            pause = backoff(self._made, first=self.FIRST_PAUSE, longest=self.LONGEST_PAUSE)
        passing = told is not None or (
            error.code() is grpc.StatusCode.UNAVAILABLE and self._made < self.LIMIT
        )
        left = self.timeout
        if passing and self._repeatable and (left is None or pause < left):
            return pause
        raise from_rpc_error(error, address=self._address) from error


def backoff(failures: int, *, first: float, longest: float) -> float:
    """Seconds to wait after so many failures in a row: doubling, with half of it left to chance."""
    ceiling = min(first * 2.0 ** min(failures - 1, 30), longest)
    return ceiling * random.uniform(0.5, 1.0)  # noqa: S311 - spreads clients, guards nothing


def spread(pause: float) -> float:
    """What the service asked to wait, and up to a quarter more, so that not all who were told so come back at once."""
    return pause * random.uniform(1.0, 1.25)  # noqa: S311 - spreads clients, guards nothing


def create(
    spec: TrainingSpec,
    *,
    name: str | None,
    experiment: str | None,
    labels: Mapping[str, str] | None,
    priority: int | None,
    shared: bool | None = None,
    ttl: int | None = None,
    job_id: str | None = None,
    request_id: str | None = None,
    validate_only: bool = False,
) -> Call[TrainingJob]:
    """CreateTrainingJob. It always carries a request id, so repeating it is safe.

    Raises:
        InvalidRequest: names every argument that is wrong.
    """
    said = {
        "display_name": name,
        "experiment": experiment,
        "labels": labels,
        "priority": priority,
        "shared": shared,
        "ttl": ttl,
    }
    given = {key: value for key, value in said.items() if value is not None}
    rest = {
        "training_job_id": job_id,
        "request_id": request_id or str(uuid.uuid4()),
        "validate_only": validate_only,
    }
    kind = training_service_pb2.CreateTrainingJobRequest
    problems = spec_problems(spec)
    if not problems:
        try:
            submission = Submission.model_validate({"spec": spec} | given)
        except ValidationError as error:
            problems = [problem.below("training_job") for problem in problems_of(error)]
    problems += unfit(kind, **rest)
    if problems:
        raise InvalidRequest(problems=problems)
    message = wire.to_message(submission, training_job_pb2.TrainingJob, only_set=True)
    return Call(
        method="CreateTrainingJob",
        request=request(kind, training_job=message, **rest),
        read=_read_job,
    )


def get(name: str) -> Call[TrainingJob]:
    """GetTrainingJob, with its evaluation."""
    asked = request(training_service_pb2.GetTrainingJobRequest, name=name)
    return Call(method="GetTrainingJob", request=asked, read=_read_job)


def cancel(name: str) -> Call[TrainingJob]:
    """CancelTrainingJob; on a cancelled job it has no effect, nor the next two on one that is paused or goes on."""
    asked = request(training_service_pb2.CancelTrainingJobRequest, name=name)
    return Call(method="CancelTrainingJob", request=asked, read=_read_job)


def pause(name: str) -> Call[TrainingJob]:
    """PauseTrainingJob."""
    asked = request(training_service_pb2.PauseTrainingJobRequest, name=name)
    return Call(method="PauseTrainingJob", request=asked, read=_read_job)


def resume(name: str) -> Call[TrainingJob]:
    """ResumeTrainingJob."""
    asked = request(training_service_pb2.ResumeTrainingJobRequest, name=name)
    return Call(method="ResumeTrainingJob", request=asked, read=_read_job)


def share(name: str, shared: bool) -> Call[TrainingJob]:
    """UpdateTrainingJob."""
    job = request(training_job_pb2.TrainingJob, name=name, shared=shared)
    asked = request(
        training_service_pb2.UpdateTrainingJobRequest, training_job=job, update_mask=SHARED
    )
    return Call(method="UpdateTrainingJob", request=asked, read=_read_job)


def delete(name: str, *, force: bool) -> Call[None]:
    """DeleteTrainingJob. A repeat would be told that there is no such job."""
    asked = request(training_service_pb2.DeleteTrainingJobRequest, name=name, force=force)
    return Call(method="DeleteTrainingJob", request=asked, read=lambda _: None, repeatable=False)


def plan(spec: TrainingSpec) -> Call[Plan]:
    """PlanTrainingJob.

    Raises:
        InvalidRequest: the spec is none.
    """
    problems = spec_problems(spec)
    if problems:
        raise InvalidRequest(problems=problems)
    message = wire.to_message(spec, training_spec_pb2.TrainingSpec, only_set=True)
    return Call(
        method="PlanTrainingJob",
        request=training_service_pb2.PlanTrainingJobRequest(spec=message),
        read=_read_plan,
    )


def list_jobs(
    *, filter: str, order_by: str, page_size: int, evaluations: bool
) -> Callable[[str], Call[Page[TrainingJob]]]:
    """ListTrainingJobs: the call for the page behind a token."""
    view = (
        training_service_pb2.TRAINING_JOB_VIEW_FULL
        if evaluations
        else training_service_pb2.TRAINING_JOB_VIEW_BASIC
    )

    def call(page_token: str) -> Call[Page[TrainingJob]]:
        asked = request(
            training_service_pb2.ListTrainingJobsRequest,
            filter=filter,
            order_by=order_by,
            page_size=page_size,
            page_token=page_token,
            view=view,
        )
        return Call(method="ListTrainingJobs", request=asked, read=_read_jobs)

    return call


def list_workers(page_token: str) -> Call[Page[Worker]]:
    """ListWorkers: the call for the page behind a token."""
    asked = request(training_service_pb2.ListWorkersRequest, page_token=page_token)
    return Call(method="ListWorkers", request=asked, read=_read_workers)


def _read_job(message: training_job_pb2.TrainingJob) -> TrainingJob:
    return wire.from_message(message, TrainingJob)


def _read_plan(message: plan_pb2.TrainingPlan) -> Plan:
    return wire.from_message(message, Plan)


def _read_jobs(message: training_service_pb2.ListTrainingJobsResponse) -> Page[TrainingJob]:
    return tuple(map(_read_job, message.training_jobs)), message.next_page_token


def _read_workers(message: training_service_pb2.ListWorkersResponse) -> Page[Worker]:
    workers = tuple(wire.from_message(worker, Worker) for worker in message.workers)
    return workers, message.next_page_token
