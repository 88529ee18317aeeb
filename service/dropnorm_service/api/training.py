"""TrainingService at the edge: convert, call, convert. What is decided is decided in `jobs`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf import empty_pb2

from dropnorm import wire
from dropnorm.results import TrainingJob
from dropnorm.spec import Submission, TrainingSpec
from dropnorm.v1 import plan_pb2, worker_pb2
from dropnorm.v1 import training_service_pb2 as pb
from dropnorm.v1.training_service_pb2_grpc import TrainingServiceServicer
from dropnorm_service.api.context import caller
from dropnorm_service.api.names import job_id_of
from dropnorm_service.api.replies import Replies
from dropnorm_service.api.updates import changes_of
from dropnorm_service.jobs.admission import check_ids
from dropnorm_service.jobs.errors import InvalidRequest, JobNotFound
from dropnorm_service.jobs.ports import JobQuery
from dropnorm_service.jobs.service import JobService
from dropnorm_service.jobs.wrong_fields import WrongFields

Context = grpc.aio.ServicerContext[Any, Any]

_PAGE_BYTES = 2 * 2**20  # of messages that end a page: gRPC's clients take 4 MiB by default


class TrainingServicer(TrainingServiceServicer):
    """The rpcs of TrainingService. Replies that many read leave as bytes (see `interceptors`)."""

    def __init__(self, jobs: JobService) -> None:
        self._jobs = jobs
        self._replies = Replies()

    async def CreateTrainingJob(
        self, request: pb.CreateTrainingJobRequest, context: Context
    ) -> Any:
        job_id, request_id = request.training_job_id or None, request.request_id or None
        wrong = WrongFields()
        with wrong:
            submission = wire.from_message(request.training_job, Submission, path="training_job")
        if wrong:  # `create` checks the ids too, but there is nothing to create
            with wrong:
                check_ids(job_id, request_id)
        wrong.settle()
        job = await self._jobs.create(
            caller.get(),
            submission,
            job_id=job_id,
            request_id=request_id,
            validate_only=request.validate_only,
        )
        return self._replies.job(job)

    async def GetTrainingJob(self, request: pb.GetTrainingJobRequest, context: Context) -> Any:
        wrong = WrongFields()
        with wrong:
            job_id = job_id_of(request.name)
        with wrong:
            full = _is_full(request.view, default=True)
        wrong.settle()
        return self._replies.job(await self._jobs.get(caller.get(), job_id), full=full)

    async def ListTrainingJobs(self, request: pb.ListTrainingJobsRequest, context: Context) -> Any:
        query = JobQuery(
            filter=request.filter,
            order_by=request.order_by,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        wrong = WrongFields()
        with wrong:
            full = _is_full(request.view, default=False)
        with wrong:
            page = await self._jobs.list(caller.get(), query)
        wrong.settle()
        reply = pb.ListTrainingJobsResponse(next_page_token=page.next_page_token)
        size = 0
        for index, job in enumerate(page.jobs):
            shown = await self._whole(job) if full else job
            if shown is None:
                continue
            message = self._replies.job(shown, full=full)
            size += len(message)
            if reply.training_jobs and size > _PAGE_BYTES:
                reply.next_page_token = page.token_behind(index - 1)
                break
            reply.training_jobs.add().MergeFromString(message)
        return reply

    async def WatchTrainingJob(
        self, request: pb.WatchTrainingJobRequest, context: Context
    ) -> AsyncIterator[Any]:
        wrong = WrongFields()
        with wrong:
            job_id = job_id_of(request.name)
        with wrong:
            _check_not_negative("after_sequence", request.after_sequence)
        wrong.settle()
        async for event in self._jobs.watch(caller.get(), job_id, request.after_sequence):
            yield self._replies.event(event)

    async def CancelTrainingJob(
        self, request: pb.CancelTrainingJobRequest, context: Context
    ) -> Any:
        return self._replies.job(await self._jobs.cancel(caller.get(), job_id_of(request.name)))

    async def PauseTrainingJob(self, request: pb.PauseTrainingJobRequest, context: Context) -> Any:
        return self._replies.job(await self._jobs.pause(caller.get(), job_id_of(request.name)))

    async def ResumeTrainingJob(
        self, request: pb.ResumeTrainingJobRequest, context: Context
    ) -> Any:
        return self._replies.job(await self._jobs.resume(caller.get(), job_id_of(request.name)))

    async def DeleteTrainingJob(
        self, request: pb.DeleteTrainingJobRequest, context: Context
    ) -> Any:
        await self._jobs.delete(caller.get(), job_id_of(request.name), force=request.force)
        return empty_pb2.Empty()

    async def UpdateTrainingJob(
        self, request: pb.UpdateTrainingJobRequest, context: Context
    ) -> Any:
        wrong = WrongFields()
        with wrong:
            job_id = job_id_of(request.training_job.name, "training_job.name")
        with wrong:
            changes = changes_of(
                request.training_job,
                request.update_mask,
                changeable=("shared",),
                field="training_job",
            )
        wrong.settle()
        return self._replies.job(await self._jobs.share(caller.get(), job_id, **changes))

    async def PlanTrainingJob(self, request: pb.PlanTrainingJobRequest, context: Context) -> Any:
        plan = await self._jobs.plan(
            caller.get(), wire.from_message(request.spec, TrainingSpec, path="spec")
        )
        return wire.to_message(plan, plan_pb2.TrainingPlan)

    async def ListWorkers(self, request: pb.ListWorkersRequest, context: Context) -> Any:
        wrong = WrongFields()
        with wrong:
            _check_not_negative("page_size", request.page_size)
        with wrong:
            if request.page_token:
                raise InvalidRequest.of("page_token", "there is one page; leave the token empty")
        wrong.settle()
        workers = await self._jobs.workers(caller.get())
        messages = [wire.to_message(worker, worker_pb2.Worker) for worker in workers]
        return pb.ListWorkersResponse(workers=messages)

    async def _whole(self, listed: TrainingJob) -> TrainingJob | None:
        """A listed job with its evaluation; None when it has been deleted since it was listed."""
        try:
            return await self._jobs.get(caller.get(), listed.id)
        except JobNotFound:
            return None


def _is_full(view: int, *, default: bool) -> bool:
    if view not in pb.TrainingJobView.values():
        known = ", ".join(pb.TrainingJobView.keys())
        raise InvalidRequest.of("view", f"there is no view of number {view}; choose one of {known}")
    return (
        default if view == pb.TRAINING_JOB_VIEW_UNSPECIFIED else view == pb.TRAINING_JOB_VIEW_FULL
    )


def _check_not_negative(field: str, number: int) -> None:
    if number < 0:
        raise InvalidRequest.of(field, f"must be 0 or more, not {number}")
