"""What may be asked of the service: the use cases around training jobs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    aclosing,
    asynccontextmanager,
    nullcontext,
)
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from dropnorm.results import (
    Event,
    Plan,
    SharingChanged,
    StateChanged,
    Tracked,
    TrainingJob,
    Worker,
)
from dropnorm.spec import Submission, TrainingSpec
from dropnorm_service.jobs import machines, states
from dropnorm_service.jobs.admission import Admission
from dropnorm_service.jobs.callers import Caller, Role
from dropnorm_service.jobs.creation import Creation
from dropnorm_service.jobs.errors import (
    JobNotFound,
    ShuttingDown,
    WrongState,
)
from dropnorm_service.jobs.expiry import Expiry
from dropnorm_service.jobs.farewell import bid_farewell
from dropnorm_service.jobs.journal import Entry, Journal, Observer
from dropnorm_service.jobs.limits import DEFAULT_LIMITS, JobLimits, JobPlaces
from dropnorm_service.jobs.live import LiveJob
from dropnorm_service.jobs.owners import check_changes, sees
from dropnorm_service.jobs.ports import (
    Clock,
    Executor,
    JobPage,
    JobQuery,
    JobStore,
    Planner,
)
from dropnorm_service.jobs.purging import Purger, Removing
from dropnorm_service.jobs.retries import DEFAULT_POLICY, RetryPolicy
from dropnorm_service.jobs.scheduler import Scheduler

_LAST_SECONDS = 5.0

log = logging.getLogger(__name__)


def utc_now() -> datetime:
    """The time now."""
    return datetime.now(UTC)


class JobService:
    """Creates, shows, steers and deletes training jobs, and sees to it that they run.

    Every method may raise StoreUnavailable. A job is given by its id, the last part of its name. To a caller who may
    not see it, it is not there; one who sees it and may not change it is refused by NotOwner.

    Args:
        store: where jobs and journals are; stays the caller's to close.
        executor: what runs them.
        planner: what resolves and checks specs.
        folder: where each job gets a folder of its own.
        data_held: within it the data set of a name stays what it is; jobs that are on disk keep theirs by themselves.
        data_hidden: whether there is an uploaded data set of a name, and a caller may not see it.
        read_up_to: global position up to which the journals' other readers have come, so that
            deleted jobs are purged only behind it; None: there are no such readers.
        retry: what becomes of lost attempts.
        limits: how much each user may ask for.
        removing: within it files may be removed, or (False) not now.
        retention: seconds for which a job is kept after its end unless it says so itself; None: for ever.
        require_room: raises LimitReached where nothing more can be stored.
        clock: the time.

    Attributes:
        places: what each user may have at once.
    """

    def __init__(
        self,
        store: JobStore,
        executor: Executor,
        planner: Planner,
        *,
        folder: Path,
        data_held: Callable[[str], AbstractAsyncContextManager[None]] = lambda dataset: (
            nullcontext()
        ),
        data_hidden: Callable[[Caller, str], bool] = lambda caller, dataset: False,
        read_up_to: Callable[[], int | None] = lambda: None,
        retry: RetryPolicy = DEFAULT_POLICY,
        limits: JobLimits = DEFAULT_LIMITS,
        removing: Removing = lambda: nullcontext(True),
        retention: int | None = None,
        require_room: Callable[[], None] = lambda: None,
        clock: Clock = utc_now,
    ) -> None:
        self._store = store
        self._executor = executor
        self._folder = folder
        self._clock = clock
        self._admission = Admission(
            planner, executor, clock, data_hidden, limits.seconds, retention
        )
        self.places = JobPlaces(limits)
        self._journal = Journal(store)
        self._scheduler = Scheduler(
            self._journal, executor, folder=folder, retry=retry, clock=clock
        )
        self._creation = Creation(
            store,
            self._journal,
            self._scheduler,
            self._admission,
            self.places,
            data_held=data_held,
            require_room=require_room,
        )
        self._purger = Purger(
            self._journal,
            store,
            folder=folder,
            read_up_to=read_up_to,
            removing=removing,
            is_busy_with=self._scheduler.is_busy_with,
        )
        self._expiry = Expiry(self._journal, store, clock)
        self._stopping = False

    async def sweep(self) -> None:
        """Remove the folders of jobs that the store does not know; before `start`, when no folder is being made."""
        await self._purger.sweep()

    async def start(self) -> None:
        """Take over what was left by the service before this one, and begin to run jobs."""
        await self._scheduler.start(self._store)
        self._purger.start()
        self._expiry.start()

    async def stop(self, grace: float) -> None:
        """Accept no job more, let workers write checkpoints, requeue their jobs, end all watches.

        Every watcher is told a last event that says so.

        Args:
            grace: seconds that workers have for it; the store has some more for all that is still written.
        """
        self._stopping = True
        before = {live.job.id: live.job.last_sequence for live in self._journal.watched()}
        await self._expiry.stop()
        # At once: a folder that is being removed may take its time, and checkpoints do not wait for it.
        late, _ = await asyncio.gather(self._scheduler.stop(grace), self._purger.stop())
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _LAST_SECONDS
        try:
            async with asyncio.timeout_at(deadline):
                await self._scheduler.requeue(late)
                await bid_farewell(self._journal, before, self._clock)
        except TimeoutError:
            log.error("the store does not say what became of a change; the next service asks it")
        await self._journal.close(max(0.0, deadline - loop.time()))

    def on_growth(self, listener: Callable[[Sequence[Event]], None]) -> None:
        """Call a function with the events by which a journal has grown, once they are on disk."""
        self._journal.listen(lambda job, events: listener(events))

    def observe(self, observer: Observer) -> None:
        """Call a function with every change of every job, once it is on disk; it may not raise."""
        self._journal.observe(observer)

    def folder_of(self, job_id: str) -> Path:
        """The job's own folder."""
        return self._folder / job_id

    async def create(
        self,
        caller: Caller,
        submission: Submission,
        *,
        job_id: str | None = None,
        request_id: str | None = None,
        validate_only: bool = False,
    ) -> TrainingJob:
        """Accept a job: when this returns, it is on disk and will be run.

        Args:
            caller: whose it will be.
            submission: what to train, and as what.
            job_id: the id that the caller wants; None: the service makes one.
            request_id: makes a repeat safe: it returns the first one's job as it is now. Each user has his own.
            validate_only: create nothing, and answer as without it: with the job that would have been
                created, with the first one's job for a repeat, or with the same refusal.

        Raises:
            InvalidRequest: the ids are malformed, or the spec does not fit together or its data.
            CannotFit: it asks for more than the service has.
            JobAlreadyExists: the id is taken.
            RequestIdReused: the request_id was accepted for something else.
            LimitReached: as many jobs of the caller's, or of all, wait as may, or the disk has no room.
            PlannerUnavailable: the spec could not be checked in time.
            ShuttingDown: the service accepts nothing any more.
        """
        if self._stopping:
            raise ShuttingDown
        return await self._creation.create(
            caller, submission, job_id, request_id, validate_only=validate_only
        )

    async def get(self, caller: Caller, job_id: str) -> TrainingJob:
        """The job as it is now.

        Raises:
            JobNotFound: there is none, or it is deleted.
        """
        return await self._journal.get(job_id, partial(sees, caller))

    async def list(self, caller: Caller, query: JobQuery) -> JobPage:
        """A page of the jobs that the caller sees, without their evaluations.

        Raises:
            InvalidListRequest: filter, order, page size or token cannot be understood.
        """
        everything = caller.role is Role.ADMIN
        return await self._store.list(replace(query, seen_by=None if everything else caller.user))

    async def watch(
        self, caller: Caller, job_id: str, after_sequence: int = 0
    ) -> AsyncGenerator[Event, None]:
        """The job's journal from `after_sequence + 1` on, then what comes.

        It ends as soon as the job is in a final state and all its journal has been told. What the
        journal gets later (`Tracked` may be late) is told to who watches again.

        Raises:
            JobNotFound: there is none, or it is deleted.
            LimitReached: the caller, or all together, follow as many journals as they may.
            InvalidRequest: the journal does not reach so far.
            ShuttingDown: the service stops; every event so far has been told.
        """
        journal = self._journal.watch(job_id, after_sequence, partial(sees, caller))
        with self.places.watching(caller):
            async with aclosing(journal):
                async for event in journal:
                    yield event

    async def cancel(self, caller: Caller, job_id: str) -> TrainingJob:
        """End a job for good; without effect when it is cancelled already.

        Raises:
            JobNotFound: there is none, or it is deleted.
            WrongState: it has succeeded or failed.
        """
        return await self._ask(caller, job_id, "cancel")

    async def pause(self, caller: Caller, job_id: str) -> TrainingJob:
        """Take a job out of its slot or the queue; without effect when it is paused already.

        Raises:
            JobNotFound: there is none, or it is deleted.
            WrongState: it has ended or is being cancelled.
        """
        return await self._ask(caller, job_id, "pause")

    async def resume(self, caller: Caller, job_id: str) -> TrainingJob:
        """Let a paused job go on; without effect when it does already.

        Raises:
            JobNotFound: there is none, or it is deleted.
            WrongState: it has ended or is being cancelled.
        """
        return await self._ask(caller, job_id, "resume")

    async def share(self, caller: Caller, job_id: str, shared: bool) -> TrainingJob:
        """Let all users see and use a job, or no longer; without effect when it is so already.

        Raises:
            JobNotFound: there is none, or it is deleted.
        """

        def decide(job: TrainingJob) -> Sequence[Entry]:
            if job.shared == shared:
                return []
            return [Entry(self._clock(), SharingChanged(shared=shared), job.attempt)]

        async with self._changing(caller, job_id) as live:
            return await self._journal.change(live, decide)

    async def delete(self, caller: Caller, job_id: str, *, force: bool = False) -> None:
        """Hide a job at once; it is removed when its journal has been read and its worker is gone.

        Args:
            force: delete it even if it has not ended; it is cancelled then.

        Raises:
            JobNotFound: there is none, or it is deleted.
            WrongState: it has not ended, and `force` is false.
        """

        def decide(job: TrainingJob) -> Sequence[Entry]:
            if job.state.terminal:
                return []
            if not force:
                raise WrongState(
                    job.name,
                    job.state,
                    f"{job.name} is {job.state.name}: cancel it first, or delete it with force.",
                )
            return self._steer(job, "cancel")

        async with self._changing(caller, job_id) as live:
            await self._journal.change(live, decide, delete=True)

    async def plan(self, caller: Caller, spec: TrainingSpec) -> Plan:
        """What a spec comes to.

        Raises:
            InvalidRequest: it does not fit together or does not fit its data.
            LimitReached: as many heavy calls of the caller's are under way as may be.
            PlannerUnavailable: there was no answer in time.
        """
        with self.places.working(caller):
            return await self._admission.plan(caller, spec, "spec")

    async def workers(self, caller: Caller) -> Sequence[Worker]:
        """The machines that run jobs; jobs that the caller does not see are not named."""
        return [await machines.local(self._executor, self._journal, caller)]

    async def record_tracking(self, job_id: str, tracked: Tracked) -> None:
        """Put the ids of a job's MLflow run on it; without effect when they are there or it is gone."""

        def decide(job: TrainingJob) -> Sequence[Entry]:
            known = (job.mlflow_experiment_id, job.mlflow_run_id)
            if known == (tracked.mlflow_experiment_id, tracked.mlflow_run_id):
                return []
            return [Entry(self._clock(), tracked, job.attempt)]

        try:
            async with self._journal.holding(job_id) as live:
                await self._journal.change(live, decide)
        except JobNotFound:
            return

    @asynccontextmanager
    async def _changing(self, caller: Caller, job_id: str) -> AsyncIterator[LiveJob]:
        """Hold a job that the caller may change within a block."""
        async with self._journal.holding(job_id) as live:
            if not sees(caller, live.job):
                raise JobNotFound(job_id)
            check_changes(caller, live.job)
            yield live

    async def _ask(self, caller: Caller, job_id: str, action: states.Action) -> TrainingJob:
        async with self._changing(caller, job_id) as live:
            return await self._journal.change(live, lambda job: self._steer(job, action))

    def _steer(self, job: TrainingJob, action: states.Action) -> Sequence[Entry]:
        state = states.answer(job, action)
        if state is job.state:
            return []
        return [Entry(self._clock(), StateChanged(state=state), job.attempt)]
