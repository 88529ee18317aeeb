"""Jobs that happen: their events as a service writes them, with numbers that look like those of a training."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dropnorm.results import (
    AutoOutcome,
    ClassMetrics,
    DatasetLoaded,
    DatasetSummary,
    EpochCompleted,
    EpochMetrics,
    Evaluated,
    Evaluation,
    Event,
    JobError,
    Metrics,
    Payload,
    State,
    StateChanged,
    SystemMetrics,
    Tracked,
    TrainingCost,
    TrainingJob,
)
from dropnorm.spec import (
    MLP,
    Adam,
    BatchNorm,
    Data,
    Dropout,
    Optimization,
    Regularization,
    TrainingSpec,
)
from dropnorm_service.jobs.ports import Change, JobStore
from dropnorm_service.jobs.projection import project

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

DIGITS = DatasetSummary(
    name="digits",
    task="classification",
    digest="5d" * 32,
    input_shape=(64,),
    outputs=10,
    class_names=tuple("0123456789"),
    train_samples=1221,
    validation_samples=216,
    test_samples=360,
)


def a_spec(
    *, dropout: float | None = None, batch_norm: bool = False, epochs: int = 3, seed: int = 7
) -> TrainingSpec:
    """The network of the literature's first example."""
    return TrainingSpec(
        architecture=MLP(hidden=(128, 64), activation="relu"),
        regularization=Regularization(
            dropout=None if dropout is None else Dropout(rate=dropout),
            batch_norm=BatchNorm() if batch_norm else None,
        ),
        optimization=Optimization(optimizer=Adam(lr=1e-3), epochs=epochs, batch_size=128),
        data=Data(dataset="digits"),
        seed=seed,
    )


class Story:
    """Writes jobs and events into a store, one after the other, as the service would."""

    def __init__(self, store: JobStore, folder: Path, now: datetime = START) -> None:
        self.store = store
        self.folder = folder
        self.now = now
        self._tracked = asyncio.Event()
        self._writing = asyncio.Lock()

    def folder_of(self, job_id: str) -> Path:
        return self.folder / job_id

    async def submit(
        self, job_id: str, spec: TrainingSpec | None = None, *, experiment: str = "digits", **fields
    ) -> TrainingJob:
        spec = spec or a_spec()
        job = TrainingJob(
            name=f"trainingJobs/{job_id}",
            display_name=fields.pop("display_name", job_id),
            experiment=experiment,
            spec=spec,
            spec_digest=spec.digest(),
            state=State.QUEUED,
            create_time=self.now,
            update_time=self.now,
            last_sequence=1,
            **fields,
        )
        event = self._event(job, 1, 0, StateChanged(state=State.QUEUED))
        await self.store.commit(Change(job=job, events=(event,), insert=True))
        return job

    async def tell(self, job_id: str, *payloads: Payload, attempt: int = 1) -> TrainingJob:
        async with self._writing:  # a mirror tells of runs meanwhile
            return await self._tell(job_id, payloads, attempt)

    async def _tell(self, job_id: str, payloads: Sequence[Payload], attempt: int) -> TrainingJob:
        job = await self.job(job_id)
        events = []
        for sequence, payload in enumerate(payloads, job.last_sequence + 1):
            self.now += timedelta(milliseconds=250)
            events.append(self._event(job, sequence, attempt, payload))
        known = [e.payload.evaluation for e in events if isinstance(e.payload, Evaluated)]
        known = known or await self._evaluation(job_id)
        job, _ = project(job, events, known[-1] if known else None)
        await self.store.commit(Change(job=job, events=tuple(events)))
        return job

    async def start(self, job_id: str, *, attempt: int = 1) -> TrainingJob:
        return await self.tell(
            job_id, moved(State.RUNNING), DatasetLoaded(dataset=DIGITS), attempt=attempt
        )

    async def train(self, job_id: str, epochs: Sequence[int], *, attempt: int = 1) -> TrainingJob:
        spec = (await self.job(job_id)).spec
        told = [epoch(spec, number) for number in epochs]
        return await self.tell(job_id, *told, attempt=attempt)

    async def succeed(self, job_id: str, *, attempt: int = 1) -> TrainingJob:
        evaluation = an_evaluation((await self.job(job_id)).spec)
        return await self.tell(
            job_id, Evaluated(evaluation=evaluation), moved(State.SUCCEEDED), attempt=attempt
        )

    async def whole(self, job_id: str, spec: TrainingSpec | None = None, **fields) -> TrainingJob:
        job = await self.submit(job_id, spec, **fields)
        await self.start(job_id)
        await self.train(job_id, range(1, job.spec.optimization.epochs + 1))
        return await self.succeed(job_id)

    async def job(self, job_id: str) -> TrainingJob:
        job = await self.store.get(job_id, deleted=True)
        assert job is not None
        return job

    async def record_tracking(self, job_id: str, tracked: Tracked) -> None:
        job = await self.job(job_id)
        await self.tell(job_id, tracked, attempt=job.attempt)
        self._tracked.set()

    async def has_run(self, job_id: str) -> TrainingJob:
        """Wait until the job knows its MLflow run."""
        while (job := await self.job(job_id)).mlflow_run_id is None:
            self._tracked.clear()
            await self._tracked.wait()
        return job

    async def _evaluation(self, job_id: str) -> list[Evaluation]:
        events = await self.store.events(job_id, after=0, limit=1000)
        return [e.payload.evaluation for e in events if isinstance(e.payload, Evaluated)]

    def _event(self, job: TrainingJob, sequence: int, attempt: int, payload: Payload) -> Event:
        return Event(
            training_job=job.name,
            sequence=sequence,
            time=self.now,
            attempt=attempt,
            payload=payload,
        )


def moved(state: State, error: JobError | None = None) -> StateChanged:
    return StateChanged(state=state, error=error)


def epoch(spec: TrainingSpec, number: int) -> EpochCompleted:
    """Losses that fall, sooner and further apart without regularisation than with it."""
    dropout = spec.regularization.dropout
    rate = dropout.rate if dropout else 0.0
    speed = 0.55 if spec.regularization.batch_norm else 0.35
    left = math.exp(-speed * number)
    wobble = 0.004 * math.sin(number * 1.7 + spec.seed)
    train = 2.1 * left + 0.004 + wobble / 4
    overfit = (0.012 if rate else 0.03) * math.log1p(number)
    validation = 1.9 * left + 0.06 + overfit - 0.02 * bool(rate) + wobble
    return EpochCompleted(
        metrics=EpochMetrics(
            epoch=number,
            step=10 * number,
            train_loss=train + 0.35 * rate + 0.02,
            train_eval_loss=train,
            train_eval_accuracy=1.0 - 0.55 * left,
            validation_loss=validation,
            validation_accuracy=0.978 + 0.008 * bool(rate) - 0.5 * left + wobble / 2,
            learning_rate=1e-3,
            batch_size=128,
            seconds=0.012,
            evaluation_seconds=0.003,
            samples_per_second=1221 / 0.012,
        ),
        system=SystemMetrics(cpu_percent=98.0 + number % 3, memory_bytes=310_000_000 + number),
    )


def an_evaluation(spec: TrainingSpec) -> Evaluation:
    history = [epoch(spec, number).metrics for number in range(1, spec.optimization.epochs + 1)]
    best = min(history, key=lambda metrics: metrics.validation_loss)
    rows = [_class(true) for true in range(10)]
    right = sum(row.predicted[index] for index, row in enumerate(rows))
    samples = sum(row.support for row in rows)
    test = Metrics(
        samples=samples,
        loss=0.09,
        accuracy=right / samples,
        nll=0.09,
        brier=0.041,
        ece=0.012,
        macro_f1=0.975,
        classes=tuple(rows),
    )
    train = Metrics(samples=1221, loss=best.train_eval_loss or 0.0, accuracy=1.0)
    validation = Metrics(samples=216, loss=best.validation_loss, accuracy=best.validation_accuracy)
    return Evaluation(
        task="classification",
        dataset=DIGITS,
        history=tuple(history),
        best_epoch=best.epoch,
        stopped_early=False,
        train=train,
        validation=validation,
        test=test,
        generalization_gap=1.0 - right / samples,
        cost=TrainingCost(
            parameters=17_226,
            forward_flops=34_048,
            seconds=0.61,
            training_seconds=0.24,
            seconds_to_best=0.5,
            samples_per_second=101_000.0,
            peak_memory_bytes=312_000_000,
            device="Intel(R) Xeon(R) Processor",
            threads=2,
        ),
        auto=AutoOutcome(learning_rate=0.02),
    )


def _class(true: int) -> ClassMetrics:
    predicted = [0] * 10
    predicted[true] = 35
    predicted[(true * 3 + 1) % 10] += 1
    right = predicted[true]
    return ClassMetrics(
        name=str(true),
        precision=35 / 36,
        recall=right / 36,
        f1=right / 36,
        support=36,
        predicted=tuple(predicted),
    )
