"""Runs attempts in processes of this machine, one process for each, ready before it is needed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Self

from dropnorm.results import JobError, Payload, Slot
from dropnorm.spec import TrainingSpec
from dropnorm_service.jobs.ports import Launch, Lost, Order, Outcome
from dropnorm_service.jobs.retries import NOT_STARTED
from dropnorm_service.workers.attempt import Patience, follow
from dropnorm_service.workers.forks import UNLIMITED, ForkServer, StartFailed
from dropnorm_service.workers.memory import MemoryWatch
from dropnorm_service.workers.messages import DataSettings, Gpu, Inventory, Start
from dropnorm_service.workers.process import Child
from dropnorm_service.workers.running import Running
from dropnorm_service.workers.slots import Device, Seat, SlotTable, note
from dropnorm_service.workers.spans import AttemptTraces, NoTraces

_CHILD = "dropnorm_service.workers.child"
_WORKER = f"{_CHILD}.worker:main"
_INVENTORY = f"{_CHILD}.inventory:main"
_START_TIME = 60.0
_EXIT_TIME = 5.0
# torch.compile may work for minutes between two steps, in which a worker cannot speak.
_COMPILE_TIME = 600.0
# A single operation may take long, but a worker that computes for so many timeouts is in an endless loop.
_BUSY_FACTOR = 10.0
_UNAVAILABLE = 14

log = logging.getLogger(__name__)


class LocalExecutor:
    """The slots of this machine, as an async context manager. Implements `jobs.ports.Executor`.

    Each free slot has a standby: a process that has set its threads, warmed up torch on its device, and
    waits. It runs one attempt and ends, so no attempt finds what another left.
    """

    def __init__(
        self,
        forks: ForkServer,
        *,
        data: DataSettings,
        cpu_slots: int | None = None,
        threads_per_slot: int | None = None,
        gpus: int | None = None,
        heartbeat_timeout: float = 60.0,
        checkpoint_interval: float = 30.0,
        max_job_seconds: float | None = None,
        worker_memory_limit: int | None = None,
        traces: AttemptTraces | None = None,
    ) -> None:
        """
        Args:
            forks: where processes come from; running.
            data: where workers find data sets.
            cpu_slots: shares of the CPU; None: one per four cores, at least one.
            threads_per_slot: CPU threads of each slot; None: the cores divided among them.
            gpus: GPUs to use, one slot each; None: all there are.
            heartbeat_timeout: seconds without a sign of life after which a worker is killed; ten
                times as many while it uses the CPU.
            checkpoint_interval: seconds between two checkpoints of an attempt.
            max_job_seconds: seconds that a job may train, over all attempts; None: any time.
            worker_memory_limit: bytes that a worker may use of the machine's memory; None: its share.
            traces: traces attempts; None: nobody does.
        """
        self._forks = forks
        self._data = data
        self._cpu_slots = cpu_slots
        self._threads = threads_per_slot
        self._gpus = gpus
        self._heartbeat_timeout = heartbeat_timeout
        self._checkpoint_interval = checkpoint_interval
        self._max_job_seconds = max_job_seconds
        self._memory = worker_memory_limit
        self._traces = traces or NoTraces()
        self._table = SlotTable(())
        self._standbys: dict[str, asyncio.Task[Child]] = {}
        self._running: dict[str, Running] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopping = False
        self.standbys_lost = 0
        """Workers that died while they waited for a job, and were replaced."""

    async def __aenter__(self) -> Self:
        """Look at the machine and make standbys.

        Raises:
            StartFailed: there are fewer GPUs than the settings name, or nobody can tell.
        """
        gpus = await self._inventory()
        self._table = SlotTable.of_machine(
            gpus,
            cpu_slots=self._cpu_slots,
            threads=self._threads,
            worker_memory=self._memory,
        )
        for seat in self._table.seats:
            self._stand_by(seat)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop(grace=0.0)

    def slots(self) -> Sequence[Slot]:
        """Every slot and what it runs now."""
        return tuple(seat.view() for seat in self._table.seats)

    def fits(self, spec: TrainingSpec) -> bool:
        """Whether a slot is free now that the spec can run in."""
        return not self._stopping and self._table.fits(spec)

    def obstacle(self, spec: TrainingSpec) -> str | None:
        """Why the spec can never run here, a sentence; None when it can."""
        return self._table.obstacle(spec)

    @property
    def worker_memory(self) -> int:
        """Bytes of the machine's memory that a worker may use."""
        return self._table.worker_memory

    def device(self, spec: TrainingSpec) -> Device:
        """The kind of slot that the spec takes."""
        return self._table.need(spec).device

    def rest(self) -> float | None:
        """Seconds until a slot is used again that is passed over since its device broke; None: there is none."""
        return self._table.rest()

    def memory_limit(self, spec: TrainingSpec) -> int | None:
        """Memory in bytes of the device the spec would run on; None when it cannot run here."""
        return self._table.memory_limit(spec)

    async def run(self, launch: Launch) -> AsyncGenerator[tuple[datetime, Payload] | Outcome, None]:
        """Run one attempt, as `jobs.ports.Executor` says.

        Raises:
            RuntimeError: no slot is free; ask `fits` first.
        """
        running = Running(launch, self._table.take(launch))
        self._running[launch.job_id] = running
        self._idle.clear()
        outcome: Outcome | None = None
        traceparent = self._traces.begin(launch)
        try:
            try:
                async with asyncio.timeout(_START_TIME):
                    worker = await self._worker_unless_stopped(running)
            except TimeoutError:
                outcome = Lost(_not_started())
                yield outcome
                return
            if worker is None:
                outcome = running.without_worker()
                yield outcome
                return
            running.start(worker, self._start(launch, traceparent))
            memory = MemoryWatch(worker, self._table.worker_memory)
            said = follow(worker, launch, self._patience(launch), memory, self._traces.take)
            async with memory.watching(), aclosing(said) as items:
                async for item in items:
                    heard = running.heard(item)
                    if isinstance(item, Outcome):
                        note(item, running.seats)
                    if isinstance(heard, Outcome):
                        outcome = heard
                    yield heard
        finally:
            self._traces.end(launch, outcome)
            await self._release(running, _EXIT_TIME if outcome else 0.0)

    def order(self, job_id: str, order: Order) -> None:
        """Tell the worker of a running job what to do; without effect when the job has none."""
        if running := self._running.get(job_id):
            running.order(order)

    async def stop(self, grace: float) -> None:
        """Start nothing more, let workers write their checkpoints, and end all of them.

        Args:
            grace: seconds that the workers have.
        """
        self._stopping = True
        for running in self._running.values():
            running.order("pause")
        try:
            async with asyncio.timeout(grace):
                await self._idle.wait()
        except TimeoutError:
            pass
        late = [running.worker for running in self._running.values() if running.worker]
        await asyncio.gather(*(worker.end() for worker in late))
        await asyncio.gather(*map(self._dismiss, self._table.seats))

    async def _inventory(self) -> Sequence[Gpu]:
        if self._gpus == 0:
            return ()
        try:
            async with asyncio.timeout(_START_TIME):
                child = await self._forks.fork(_INVENTORY, {})
                answer = await child.receive()
                await child.end()
        except TimeoutError:
            raise StartFailed(
                "CUDA did not say which GPUs there are; gpus 0 does without"
            ) from None
        if not isinstance(answer, Inventory):
            raise StartFailed("the process that looks for GPUs failed; standard error says why")
        if self._gpus is not None and len(answer.gpus) < self._gpus:
            raise StartFailed(
                f"gpus is {self._gpus}, and CUDA can use {len(answer.gpus)} on this machine"
            )
        return answer.gpus[: self._gpus]

    async def _worker_unless_stopped(self, running: Running) -> Child | None:
        """The worker of an attempt; None when it was told to stop before there was one."""
        worker = asyncio.create_task(self._worker(running.seats))
        stopped = asyncio.create_task(running.stopped.wait())
        try:
            await asyncio.wait({worker, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            if not worker.done():
                worker.cancel()
                await asyncio.wait({worker})
        return None if worker.cancelled() else worker.result()

    async def _worker(self, seats: Sequence[Seat]) -> Child:
        if len(seats) > 1:
            # A standby sees its own GPU alone, and CUDA looks but once.
            for seat in seats:
                await self._dismiss(seat)
            return await self._fork(seats)
        seat = seats[0]
        while True:
            task = self._standbys[seat.id]
            await asyncio.wait({task})
            # Whatever became of it, it is this slot's standby no longer, or no other would come.
            self._standbys.pop(seat.id, None)
            standby = task.result()
            if not standby.gone:
                return standby
            log.warning("a waiting worker had died", extra={"slot": seat.id})
            self.standbys_lost += 1
            self._stand_by(seat)

    def _start(self, launch: Launch, traceparent: str | None) -> Start:
        return Start(
            spec=launch.spec,
            folder=launch.folder,
            data=self._data,
            checkpoint_interval=self._checkpoint_interval,
            memory_limit_bytes=self._table.memory_limit(launch.spec),
            time_limit=self._time_limit(launch.spec),
            epochs_told=launch.epochs_told,
            traceparent=traceparent,
        )

    def _time_limit(self, spec: TrainingSpec) -> float | None:
        limits = (spec.compute.time_limit, self._max_job_seconds)
        return min((limit for limit in limits if limit is not None), default=None)

    def _patience(self, launch: Launch) -> Patience:
        compiling = _COMPILE_TIME if launch.spec.compute.compile else 0.0
        return Patience(
            idle=self._heartbeat_timeout + compiling,
            busy=_BUSY_FACTOR * self._heartbeat_timeout + compiling,
            standstill=launch.spec.compute.idle_limit,
        )

    async def _release(self, running: Running, patience: float) -> None:
        running.close()
        try:
            if running.worker is not None:
                await running.worker.end(patience)
        finally:
            del self._running[running.launch.job_id]
            for seat in running.seats:
                seat.launch = None
                if seat.id not in self._standbys and not self._stopping:
                    self._stand_by(seat)
            if not self._running:
                self._idle.set()

    async def _fork(self, seats: Sequence[Seat]) -> Child:
        # CUDA reserves more than it uses, so there the watch alone has to do.
        on_cpu = all(seat.device == "cpu" for seat in seats)
        limit = self._table.worker_memory if on_cpu else UNLIMITED
        return await self._forks.fork(_WORKER, _environment(seats), memory_limit=limit)

    def _stand_by(self, seat: Seat) -> None:
        self._standbys[seat.id] = asyncio.create_task(
            self._fork([seat]), name=f"standby of {seat.id}"
        )

    async def _dismiss(self, seat: Seat) -> None:
        task = self._standbys.pop(seat.id, None)
        if task is None:
            return
        task.cancel()
        await asyncio.wait({task})
        if task.cancelled():
            return
        if error := task.exception():
            log.error("no worker stood by", extra={"slot": seat.id}, exc_info=error)
        else:
            await task.result().end()


def _environment(seats: Sequence[Seat]) -> dict[str, str]:
    """What a worker in these slots is to see of the machine."""
    return {
        "CUDA_VISIBLE_DEVICES": ",".join(seat.visible for seat in seats),
        "OMP_NUM_THREADS": str(seats[0].threads),
    }


def _not_started() -> JobError:
    return JobError(
        code=_UNAVAILABLE,
        reason=NOT_STARTED,
        message=f"No worker could be started within {_START_TIME:g} seconds; the server's log says why.",
    )
