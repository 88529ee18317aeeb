"""A bench for jobs: an executor whose workers say what the test tells them, and a planner that has no objection."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from tests.service.callers import AsCaller

from dropnorm.results import (
    CheckpointWritten,
    DatasetSummary,
    EpochMetrics,
    Evaluated,
    Evaluation,
    Event,
    ExportProof,
    JobError,
    MemoryEstimate,
    Metrics,
    ModelExport,
    Payload,
    Plan,
    Prediction,
    Slot,
    State,
    TrainingCost,
    TrainingJob,
)
from dropnorm.spec import (
    MLP,
    Compute,
    Data,
    DropoutSampling,
    ExportSettings,
    Submission,
    Tensor,
    TrainingSpec,
)
from dropnorm_service.jobs.callers import LOCAL, Caller
from dropnorm_service.jobs.ports import Finished, Launch, Lost, Order, Outcome, Planner, Stopped
from dropnorm_service.jobs.retries import RetryPolicy
from dropnorm_service.jobs.service import JobService
from dropnorm_service.store import SqlJobStore

Item = tuple[datetime, Payload] | Outcome

PROMPT = RetryPolicy(limit=3, first_delay=0.0)

PATIENCE = 60.0
"""Seconds after which something that a test waits for hangs, however slow the machine is."""

SPEC = TrainingSpec(architecture=MLP(hidden=(8,)), data=Data(dataset="digits"))


def on_gpus(count: int) -> TrainingSpec:
    """A spec that takes so many GPUs."""
    return SPEC.model_copy(update={"compute": Compute(device="cuda", gpus=count)})


GPU_SPEC = on_gpus(1)

DATASET = DatasetSummary(
    name="digits",
    task="classification",
    input_shape=(64,),
    outputs=10,
    train_samples=1222,
    validation_samples=215,
    test_samples=360,
)


class Attempt:
    """A worker at the end of the test's strings."""

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self.orders: list[Order] = []
        self.ordered = asyncio.Event()
        self.closed = asyncio.Event()
        self.may_close = asyncio.Event()
        """Cleared: its process takes long to end after its outcome."""
        self.may_close.set()
        self.items: asyncio.Queue[Item] = asyncio.Queue()

    def say(self, *payloads: Payload) -> None:
        for payload in payloads:
            self.items.put_nowait((datetime.now(UTC), payload))

    def end(self, outcome: Outcome) -> None:
        self.items.put_nowait(outcome)

    def succeed(self, evaluation: Evaluation | None = None) -> None:
        self.say(Evaluated(evaluation=evaluation or EVALUATION))
        self.end(Finished())

    def checkpoint(self, step: int) -> None:
        self.say(CheckpointWritten(epoch=1, step=step))

    async def obey(self) -> Order:
        """Stop at the next order, as a worker does."""
        await self.ordered.wait()
        self.end(Stopped(self.orders[-1]))
        return self.orders[-1]


class BenchExecutor:
    """An Executor with as many slots as the test needs."""

    def __init__(self, cpus: int = 2, gpus: int = 0) -> None:
        self.free = {"cpu": cpus, "cuda": gpus}
        self.total = dict(self.free)
        self.resting: float | None = None
        self.attempts: dict[str, Attempt] = {}
        self.started: asyncio.Queue[Attempt] = asyncio.Queue()

    def slots(self) -> Sequence[Slot]:
        return [
            Slot(
                id=f"{kind}-{n}",
                device="cpu",
                device_name=kind,
                threads=1,
                memory_bytes=2**30,
                training_job=job,
            )
            for kind, count in self.total.items()
            for n, job in zip(range(count), [*self._running(kind), *[""] * count], strict=False)
        ]

    def _running(self, kind: str) -> Sequence[str]:
        """Names of the jobs that slots of a kind run, as though each took one."""
        launches = [attempt.launch for attempt in self.attempts.values()]
        return [
            f"trainingJobs/{each.job_id}" for each in launches if self.device(each.spec) == kind
        ]

    def fits(self, spec: TrainingSpec) -> bool:
        return self.free[self.device(spec)] >= _slots(spec)

    def obstacle(self, spec: TrainingSpec) -> str | None:
        enough = self.total[self.device(spec)] >= _slots(spec)
        return None if enough else "This service has too few GPUs."

    def device(self, spec: TrainingSpec) -> Literal["cpu", "cuda"]:
        return "cuda" if spec.compute.device == "cuda" else "cpu"

    def rest(self) -> float | None:
        return self.resting

    async def run(self, launch: Launch) -> AsyncGenerator[Item, None]:
        kind, slots = self.device(launch.spec), _slots(launch.spec)
        assert self.free[kind] >= slots, "launched without a free slot"
        assert launch.job_id not in self.attempts, "two attempts of one job at a time"
        assert launch.folder.is_dir()
        self.free[kind] -= slots
        attempt = self.attempts[launch.job_id] = Attempt(launch)
        self.started.put_nowait(attempt)
        try:
            while True:
                item = await attempt.items.get()
                yield item
                if isinstance(item, Outcome):
                    return
        finally:
            await attempt.may_close.wait()
            del self.attempts[launch.job_id]
            self.free[kind] += slots
            attempt.closed.set()

    def order(self, job_id: str, order: Order) -> None:
        if job_id in self.attempts:
            self.attempts[job_id].orders.append(order)
            self.attempts[job_id].ordered.set()


class BenchPredictor:
    """A Predictor that says its inputs."""

    async def predict(
        self,
        training_job: str,
        folder: Path,
        inputs: Tensor,
        sampling: DropoutSampling | None,
        *,
        user: str = "",
    ) -> Prediction:
        return Prediction(training_job=training_job, task="regression", outputs=inputs)


class BenchExporter:
    """An Exporter that writes a file without meaning."""

    content = bytes(range(256)) * 10_000

    async def export(
        self,
        training_job: str,
        model: Path,
        settings: ExportSettings,
        *,
        name: str,
        folder: Path,
        user: str = "",
    ) -> ModelExport:
        export = ModelExport(
            name=name,
            settings=settings,
            file_name="model.bin",
            size_bytes=len(self.content),
            sha256=hashlib.sha256(self.content).hexdigest(),
            folded_norms=1,
            kept_norms=0,
            removed_dropouts=0,
            proof=ExportProof(
                samples=1,
                largest_deviation=0.0,
                largest_output=1.0,
                batch_size=1,
                threads=1,
                milliseconds=1.0,
                original_milliseconds=1.0,
            ),
            create_time=datetime.now(UTC),
        )
        await asyncio.to_thread(self._write, folder, export)
        return export

    def _write(self, folder: Path, export: ModelExport) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.bin").write_bytes(self.content)
        (folder / "export.json").write_text(export.model_dump_json())


class BenchPlanner:
    """A Planner that finds every spec good, or says what it is told to say."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    async def plan(self, spec: TrainingSpec, *, uploads: bool = True, user: str = "") -> Plan:
        if self.error is not None:
            raise self.error
        return Plan(
            spec=spec,
            spec_digest=spec.digest(),
            dataset=DATASET,
            layers=(),
            parameters=1,
            forward_flops=1,
            steps_per_epoch=10,
            total_steps=100,
            last_batch_size=70,
            memory=MemoryEstimate(
                parameters=1, gradients=1, optimizer=1, activations=1, data=1, total=5
            ),
        )


class Bench:
    """A service on a real store, with its executor and planner.

    Attributes:
        jobs: the service.
        service: the same, as the local user meets it.
    """

    def __init__(
        self,
        store: SqlJobStore,
        folder: Path,
        *,
        cpus: int = 2,
        gpus: int = 0,
        planner: Planner | None = None,
        **more: Any,
    ) -> None:
        self.store = store
        self.folder = folder
        self.executor = BenchExecutor(cpus, gpus)
        self.planner = BenchPlanner()
        self.jobs = JobService(
            store, self.executor, planner or self.planner, folder=folder, retry=PROMPT, **more
        )
        self.service = self.as_(LOCAL)

    def as_(self, caller: Caller) -> Any:
        """The service as a caller meets it."""
        return AsCaller(self.jobs, caller)

    async def create(self, spec: TrainingSpec = SPEC, priority: int = 0) -> TrainingJob:
        return await self.jobs.create(LOCAL, Submission(spec=spec, priority=priority))

    async def launched(self) -> Attempt:
        """The next attempt that the scheduler starts."""
        async with asyncio.timeout(PATIENCE):
            return await self.executor.started.get()

    async def reached(self, job: TrainingJob, state: State) -> TrainingJob:
        """The job once it is in a state."""
        async with asyncio.timeout(PATIENCE):
            after = 0
            while (now := await self.jobs.get(LOCAL, job.id)).state is not state:
                assert not now.state.terminal, f"{job.id} has ended: {now.error or now.state.name}"
                after = await self._next_event(job.id, max(after, now.last_sequence))
        return now

    async def journal(self, job: TrainingJob) -> Sequence[Event]:
        return await self.store.events(job.id, after=0, limit=10_000)

    async def states(self, job: TrainingJob) -> list[State]:
        """Every state the job has been in."""
        payloads = [event.payload for event in await self.journal(job)]
        return [payload.state for payload in payloads if payload.kind == "state"]

    async def _next_event(self, job_id: str, after: int) -> int:
        async for event in self.jobs.watch(LOCAL, job_id, after):
            return event.sequence
        return after


def _slots(spec: TrainingSpec) -> int:
    return spec.compute.gpus or 1


_METRICS = Metrics(samples=360, loss=0.1, accuracy=0.97)

EVALUATION = Evaluation(
    task="classification",
    dataset=DATASET,
    history=(
        EpochMetrics(
            epoch=1,
            step=10,
            train_loss=float("nan"),
            validation_loss=0.2,
            validation_accuracy=0.9,
            learning_rate=1e-3,
            batch_size=128,
            seconds=0.1,
            evaluation_seconds=0.01,
            samples_per_second=1e4,
        ),
    ),
    best_epoch=1,
    stopped_early=False,
    train=_METRICS,
    validation=_METRICS,
    test=_METRICS,
    generalization_gap=0.0,
    cost=TrainingCost(
        parameters=1,
        forward_flops=1,
        seconds=1.0,
        training_seconds=1.0,
        seconds_to_best=1.0,
        samples_per_second=1e4,
        peak_memory_bytes=1,
        device="cpu",
        threads=1,
    ),
)


def lost() -> Lost:
    """A worker that was killed."""
    return Lost(JobError(code=10, reason="WORKER_LOST", message="The worker was killed."))
