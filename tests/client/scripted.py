"""A real gRPC server that speaks the contract and does what a test tells it, faults included."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2, empty_pb2
from google.rpc import error_details_pb2, status_pb2
from tests.client import samples
from tests.ports import free_port

from dropnorm import wire
from dropnorm.results import Event, Payload, SharingChanged, State, StateChanged, TrainingJob
from dropnorm.spec import Problem, Submission
from dropnorm.v1 import plan_pb2, training_event_pb2, training_job_pb2, worker_pb2
from dropnorm.v1 import training_service_pb2 as pb
from dropnorm.v1.training_service_pb2_grpc import (
    TrainingServiceServicer,
    add_TrainingServiceServicer_to_server,
)

Context = Any
Fault = Callable[[Context], Any]


def fault(code: grpc.StatusCode, details: str = "as the test wishes") -> Fault:
    """A bare status, as proxies and dying servers send it."""
    return lambda context: context.abort(code, details)


def rejection(
    code: grpc.StatusCode,
    reason: str,
    message: str = "As the test wishes.",
    problems: Iterable[Problem] = (),
    retry_after: float | None = None,
    **metadata: str,
) -> Fault:
    """An error in the service's own form: ErrorInfo, and BadRequest or RetryInfo where there is something for them."""
    details: list[Any] = [
        error_details_pb2.ErrorInfo(reason=reason, domain="dropnorm.dev", metadata=metadata)
    ]
    violations = [
        error_details_pb2.BadRequest.FieldViolation(
            field=problem.field, description=problem.message
        )
        for problem in problems
    ]
    if violations:
        details.append(error_details_pb2.BadRequest(field_violations=violations))
    if retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(retry_after * 1e3))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    trailers = (
        ("x-request-id", "request-1"),
        ("grpc-status-details-bin", status.SerializeToString()),
    )
    return lambda context: context.abort(code, message, trailers)


class ScriptedService(TrainingServiceServicer):
    """Jobs in memory, whose journals grow by `tell`."""

    def __init__(self) -> None:
        self.address = ""
        self.requests: list[Any] = []
        """Every request received."""
        self.faults: dict[str, list[Fault]] = defaultdict(list)
        """By method: what happens to its next calls, one after the other, instead of an answer."""
        self.jobs: dict[str, TrainingJob] = {}
        self.journals: dict[str, list[Event]] = {}
        self.break_after: list[int] = []
        """Each of the next watches breaks off after so many events."""
        self.repeat = 0
        """Watches send so many events before `after_sequence` again."""
        self.created = asyncio.Event()
        """A client has created a job."""
        self._grown = asyncio.Condition()
        self._server: grpc.aio.Server | None = None
        self._port = free_port()

    async def start(self) -> None:
        """Listen, on the same port as before."""
        self._server = grpc.aio.server()
        add_TrainingServiceServicer_to_server(self, self._server)
        self._port = self._server.add_insecure_port(f"127.0.0.1:{self._port}")
        self.address = f"127.0.0.1:{self._port}"
        await self._server.start()

    async def stop(self) -> None:
        """Drop every connection."""
        assert self._server is not None
        await self._server.stop(None)

    def add(self, job: TrainingJob, *payloads: Payload) -> TrainingJob:
        """A job with a journal: queued, then these."""
        self.jobs[job.name] = job
        self.journals[job.name] = []
        for payload in (StateChanged(state=State.QUEUED), *payloads):
            self._append(job.name, payload)
        return self.jobs[job.name]

    async def tell(self, name: str, *payloads: Payload) -> None:
        """Let a job's journal grow."""
        async with self._grown:
            for payload in payloads:
                self._append(name, payload)
            self._grown.notify_all()

    def _append(self, name: str, payload: Payload) -> None:
        journal = self.journals[name]
        number = len(journal) + 1
        journal.append(
            Event(
                training_job=name,
                sequence=number,
                time=samples.moment(number),
                attempt=1,
                payload=payload,
            )
        )
        changes: dict[str, Any] = {"last_sequence": number}
        if isinstance(payload, StateChanged):
            changes |= {"state": payload.state, "error": payload.error}
            if payload.state is State.SUCCEEDED:
                changes["evaluation"] = samples.evaluation()
        if isinstance(payload, SharingChanged):
            changes["shared"] = payload.shared
        self.jobs[name] = self.jobs[name].model_copy(update=changes)

    async def _begin(self, request: Any, context: Context) -> None:
        self.requests.append(request)
        method = type(request).__name__.removesuffix("Request")
        if self.faults[method]:
            await self.faults[method].pop(0)(context)

    async def _find(self, name: str, context: Context) -> TrainingJob:
        if name not in self.jobs:
            message = f"There is no training job {name}."
            await rejection(grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND", message)(context)
        return self.jobs[name]

    async def CreateTrainingJob(
        self, request: pb.CreateTrainingJobRequest, context: Context
    ) -> Any:
        await self._begin(request, context)
        asked = wire.from_message(request.training_job, Submission)
        id = request.training_job_id or f"job-{len(self.jobs)}"
        job = samples.job(
            id,
            display_name=asked.display_name or id,
            experiment=asked.experiment,
            labels=asked.labels,
            priority=asked.priority,
            spec=asked.spec,
            shared=asked.shared,
        )
        if not request.validate_only:
            job = self.add(job)
            self.created.set()
        return _message(job)

    async def GetTrainingJob(self, request: pb.GetTrainingJobRequest, context: Context) -> Any:
        await self._begin(request, context)
        return _message(await self._find(request.name, context))

    async def ListTrainingJobs(self, request: pb.ListTrainingJobsRequest, context: Context) -> Any:
        await self._begin(request, context)
        size, start = request.page_size or 2, int(request.page_token or 0)
        jobs = list(self.jobs.values())
        more = start + size < len(jobs)
        return pb.ListTrainingJobsResponse(
            training_jobs=[_message(job) for job in jobs[start : start + size]],
            next_page_token=str(start + size) if more else "",
        )

    async def WatchTrainingJob(
        self, request: pb.WatchTrainingJobRequest, context: Context
    ) -> AsyncIterator[Any]:
        await self._begin(request, context)
        await self._find(request.name, context)
        journal = self.journals[request.name]
        limit = self.break_after.pop(0) if self.break_after else None
        next_index = max(request.after_sequence - self.repeat, 0)
        while True:
            for event in journal[next_index:]:
                if limit == 0:
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "broken off")
                limit = None if limit is None else limit - 1
                yield wire.to_message(event, training_event_pb2.TrainingEvent)
                next_index = event.sequence
            if self.jobs[request.name].state.terminal:
                return
            await self._growth(journal, next_index)

    async def _growth(self, journal: list[Event], length: int) -> None:
        async with self._grown:
            await self._grown.wait_for(lambda: len(journal) > length)

    async def CancelTrainingJob(
        self, request: pb.CancelTrainingJobRequest, context: Context
    ) -> Any:
        return await self._move(request, context, State.CANCELLED)

    async def PauseTrainingJob(self, request: pb.PauseTrainingJobRequest, context: Context) -> Any:
        return await self._move(request, context, State.PAUSED)

    async def ResumeTrainingJob(
        self, request: pb.ResumeTrainingJobRequest, context: Context
    ) -> Any:
        return await self._move(request, context, State.QUEUED)

    async def _move(self, request: Any, context: Context, state: State) -> Any:
        await self._begin(request, context)
        await self._find(request.name, context)
        await self.tell(request.name, StateChanged(state=state))
        return _message(self.jobs[request.name])

    async def UpdateTrainingJob(
        self, request: pb.UpdateTrainingJobRequest, context: Context
    ) -> Any:
        await self._begin(request, context)
        name, shared = request.training_job.name, request.training_job.shared
        await self._find(name, context)
        self._append(name, SharingChanged(shared=shared))
        return _message(self.jobs[name])

    async def DeleteTrainingJob(
        self, request: pb.DeleteTrainingJobRequest, context: Context
    ) -> Any:
        await self._begin(request, context)
        await self._find(request.name, context)
        del self.jobs[request.name]
        return empty_pb2.Empty()

    async def PlanTrainingJob(self, request: pb.PlanTrainingJobRequest, context: Context) -> Any:
        await self._begin(request, context)
        return wire.to_message(samples.plan(), plan_pb2.TrainingPlan)

    async def ListWorkers(self, request: pb.ListWorkersRequest, context: Context) -> Any:
        await self._begin(request, context)
        worker = wire.to_message(samples.WORKER, worker_pb2.Worker)
        return pb.ListWorkersResponse(workers=[worker])


def _message(job: TrainingJob) -> training_job_pb2.TrainingJob:
    return wire.to_message(job, training_job_pb2.TrainingJob)
