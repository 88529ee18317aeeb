"""TrainingService at the edge: convert, call, convert. What is decided is decided in `jobs`."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf import empty_pb2

from dropnorm import wire
from dropnorm.spec import Problem, Submission, TrainingSpec
from dropnorm.v1 import plan_pb2, worker_pb2
from dropnorm.v1 import training_service_pb2 as pb
from dropnorm.v1.training_service_pb2_grpc import TrainingServiceServicer
from dropnorm_service.api.replies import Replies
from dropnorm_service.jobs.errors import InvalidRequest
from dropnorm_service.jobs.ports import JobQuery
from dropnorm_service.jobs.service import JobService

Context = grpc.aio.ServicerContext[Any, Any]

_NAME = re.compile(r"trainingJobs/([a-z](?:[a-z0-9-]{0,61}[a-z0-9])?)")


class TrainingServicer(TrainingServiceServicer):
    """The rpcs of TrainingService. Replies that many read leave as bytes (see `interceptors`)."""

    def __init__(self, jobs: JobService) -> None:
        self._jobs = jobs
        self._replies = Replies()

    async def CreateTrainingJob(
        self, request: pb.CreateTrainingJobRequest, context: Context
    ) -> Any:
        submission = wire.from_message(request.training_job, Submission, path="training_job")
        job = await self._jobs.create(
            submission,
            job_id=request.training_job_id or None,
            request_id=request.request_id or None,
            validate_only=request.validate_only,
        )
        return self._replies.job(job)

    async def GetTrainingJob(self, request: pb.GetTrainingJobRequest, context: Context) -> Any:
        job = await self._jobs.get(_job_id(request.name))
        return self._replies.job(job, full=request.view != pb.TRAINING_JOB_VIEW_BASIC)

    async def ListTrainingJobs(self, request: pb.ListTrainingJobsRequest, context: Context) -> Any:
        full = request.view == pb.TRAINING_JOB_VIEW_FULL
        page = await self._jobs.list(
            JobQuery(
                filter=request.filter,
                order_by=request.order_by,
                page_size=request.page_size,
                page_token=request.page_token,
            )
        )
        reply = pb.ListTrainingJobsResponse(next_page_token=page.next_page_token)
        for listed in page.jobs:
            job = await self._jobs.get(listed.id) if full else listed
            reply.training_jobs.add().MergeFromString(self._replies.job(job, full=full))
        return reply

    async def WatchTrainingJob(
        self, request: pb.WatchTrainingJobRequest, context: Context
    ) -> AsyncIterator[Any]:
        if request.after_sequence < 0:
            raise InvalidRequest([Problem("after_sequence", "must be 0 or more")])
        async for event in self._jobs.watch(_job_id(request.name), request.after_sequence):
            yield self._replies.event(event)

    async def CancelTrainingJob(
        self, request: pb.CancelTrainingJobRequest, context: Context
    ) -> Any:
        return self._replies.job(await self._jobs.cancel(_job_id(request.name)))

    async def PauseTrainingJob(self, request: pb.PauseTrainingJobRequest, context: Context) -> Any:
        return self._replies.job(await self._jobs.pause(_job_id(request.name)))

    async def ResumeTrainingJob(
        self, request: pb.ResumeTrainingJobRequest, context: Context
    ) -> Any:
        return self._replies.job(await self._jobs.resume(_job_id(request.name)))

    async def DeleteTrainingJob(
        self, request: pb.DeleteTrainingJobRequest, context: Context
    ) -> Any:
        await self._jobs.delete(_job_id(request.name), force=request.force)
        return empty_pb2.Empty()

    async def PlanTrainingJob(self, request: pb.PlanTrainingJobRequest, context: Context) -> Any:
        plan = await self._jobs.plan(wire.from_message(request.spec, TrainingSpec, path="spec"))
        return wire.to_message(plan, plan_pb2.TrainingPlan)

    async def ListWorkers(self, request: pb.ListWorkersRequest, context: Context) -> Any:
        if request.page_size < 0:
            raise InvalidRequest([Problem("page_size", "must be 0 or more")])
        if request.page_token:
            raise InvalidRequest(
                [Problem("page_token", "there is one page; leave the token empty")]
            )
        workers = [wire.to_message(worker, worker_pb2.Worker) for worker in self._jobs.workers()]
        return pb.ListWorkersResponse(workers=workers)


def _job_id(name: str) -> str:
    match = _NAME.fullmatch(name)
    if match is None:
        raise InvalidRequest(
            [Problem("name", f"a job's name is trainingJobs/{{id}}, not {name[:80]!r}")]
        )
    return match[1]
