"""AsyncClient and AsyncJobHandle: `dropnorm.client` with `await`. What is documented there is not repeated here."""

# ruff: noqa: ASYNC109 - a timeout here is the call's gRPC deadline, which travels to the service

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from dropnorm import _calls
from dropnorm._arguments import job_name, seconds
from dropnorm._calls import Attempts, Call, Page
from dropnorm._connection import TLS, Connection
from dropnorm._following import Epochs, Watching, final, follow, outcome, settled
from dropnorm._job_view import JobView
from dropnorm._progress import display
from dropnorm.datasets import AsyncDatasets
from dropnorm.errors import ClientClosed
from dropnorm.models import EXPORT_TIMEOUT, REGISTER_TIMEOUT, AsyncModels
from dropnorm.results import (
    EpochMetrics,
    Evaluation,
    Event,
    ModelExport,
    ModelVersion,
    Plan,
    Prediction,
    TrainingJob,
    Worker,
)
from dropnorm.spec import ExportFormat, TrainingSpec

Result = TypeVar("Result")


class AsyncClient:
    """`dropnorm.Client` for asyncio: the same methods with `await`, the same iterators with `async for`.

    Close it, or use it with `async with`. It belongs to the event loop of its first call.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        token: str | None = None,
        tls: bool | TLS | None = None,
        insecure: bool = False,
        timeout: float = _calls.DEFAULT_TIMEOUT,
        patience: float = _calls.DEFAULT_PATIENCE,
    ) -> None:
        self._connection = Connection.resolve(address, token=token, tls=tls, insecure=insecure)
        self.address = self._connection.address
        self.timeout = timeout
        self.patience = patience
        seconds("timeout", timeout)
        seconds("patience", patience)
        self._closed = False
        self._channel: grpc.aio.Channel | None = None
        self._methods: Mapping[str, Any] = {}

    @property
    def datasets(self) -> AsyncDatasets:
        """Your own data sets: `upload`, `get`, `list`, `delete`."""
        return AsyncDatasets(self)

    @property
    def models(self) -> AsyncModels:
        """The models that jobs made."""
        return AsyncModels(self)

    async def train(
        self,
        spec: TrainingSpec,
        *,
        name: str | None = None,
        experiment: str | None = None,
        labels: Mapping[str, str] | None = None,
        priority: int | None = None,
        shared: bool = False,
        ttl: int | None = None,
        job_id: str | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> AsyncJobHandle:
        """Queue a job; see `Client.train`."""
        call = _calls.create(
            spec,
            name=name,
            experiment=experiment,
            labels=labels,
            priority=priority,
            shared=shared or None,
            ttl=ttl,
            job_id=job_id,
            request_id=request_id,
        )
        return AsyncJobHandle(self, await self._call(call, timeout))

    async def validate(
        self,
        spec: TrainingSpec,
        *,
        name: str | None = None,
        experiment: str | None = None,
        labels: Mapping[str, str] | None = None,
        priority: int | None = None,
        shared: bool = False,
        ttl: int | None = None,
        job_id: str | None = None,
        timeout: float | None = None,
    ) -> TrainingJob:
        """Check everything that `train` would, and create nothing; see `Client.validate`."""
        call = _calls.create(
            spec,
            name=name,
            experiment=experiment,
            labels=labels,
            priority=priority,
            shared=shared or None,
            ttl=ttl,
            job_id=job_id,
            validate_only=True,
        )
        return await self._call(call, timeout)

    async def plan(self, spec: TrainingSpec, *, timeout: float | None = None) -> Plan:
        """What a spec comes to, before anything is spent; see `Client.plan`."""
        return await self._call(_calls.plan(spec), timeout)

    async def job(self, job: str, *, timeout: float | None = None) -> AsyncJobHandle:
        """A job by its id or resource name; see `Client.job`."""
        call = _calls.get(job_name(job))
        return AsyncJobHandle(self, await self._call(call, timeout))

    async def jobs(
        self,
        *,
        filter: str = "",
        order_by: str = "",
        page_size: int = 0,
        evaluations: bool = False,
        timeout: float | None = None,
    ) -> AsyncIterator[AsyncJobHandle]:
        """Every job, or those that a filter keeps, asked for page by page; see `Client.jobs`."""
        listing = _calls.list_jobs(
            filter=filter, order_by=order_by, page_size=page_size, evaluations=evaluations
        )
        async for job in self._pages(listing, timeout):
            yield AsyncJobHandle(self, job)

    async def workers(self, *, timeout: float | None = None) -> tuple[Worker, ...]:
        """The machines that run jobs, their slots, and what each slot runs."""
        return tuple([worker async for worker in self._pages(_calls.list_workers, timeout)])

    async def close(self) -> None:
        """Close the connection; running watches end with ClientClosed. Jobs are not touched."""
        self._closed = True
        if self._channel is not None:
            await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.address}{' (closed)' if self._closed else ''}>"

    def _method(self, name: str) -> Any:
        self._check_open()
        if self._channel is None:  # only now, because a channel belongs to the running event loop
            self._channel = self._connection.channel(grpc.aio)
            self._methods = _calls.methods(self._channel, self._connection.metadata)
        return self._methods[name]

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosed(f"This client of {self.address} is closed; make a new one.")

    def _check_cancelled(self) -> None:
        """Closing a channel cancels its calls, which looks as though the caller's task had been cancelled."""
        task = asyncio.current_task()
        if task is None or not task.cancelling():
            self._check_open()

    async def _call(self, call: Call[Result], timeout: float | None) -> Result:
        attempts = Attempts(
            call, address=self.address, timeout=self.timeout if timeout is None else timeout
        )
        while True:
            try:
                reply = await self._method(call.method)(call.request, timeout=attempts.timeout)
            except asyncio.CancelledError:
                self._check_cancelled()
                raise
            except grpc.RpcError as error:
                self._check_open()
                await asyncio.sleep(attempts.pause_after(error))
            else:
                return call.read(reply)

    async def _pages(
        self, listing: Callable[[str], Call[Page[Result]]], timeout: float | None
    ) -> AsyncIterator[Result]:
        token, more = "", True
        while more:
            items, token = await self._call(listing(token), timeout)
            for item in items:
                yield item
            more = token != ""


class AsyncJobHandle(JobView):
    """`dropnorm.JobHandle` for asyncio: the same methods with `await`, `watch` with `async for`."""

    def __init__(self, client: AsyncClient, snapshot: TrainingJob) -> None:
        super().__init__(snapshot)
        self._client = client

    async def refresh(self, *, timeout: float | None = None) -> Self:
        """Ask the service how the job is."""
        return await self._update(_calls.get(self.name), timeout)

    def watch(self, *, after: int = 0) -> AsyncIterator[Event]:
        """The job's journal until the job has ended; see `JobHandle.watch`."""
        return self._follow(after, None)

    async def result(self, *, progress: bool = False, timeout: float | None = None) -> Evaluation:
        """Wait for the job to end; see `JobHandle.result`."""
        if not final(self.state):
            with display(progress) as show:
                show(self.snapshot)
                async for event in self._follow(self.snapshot.last_sequence, timeout):
                    show(self.snapshot, event)
        if not settled(self.snapshot):
            await self.refresh()
        return outcome(self.snapshot)

    async def history(self, *, timeout: float | None = None) -> tuple[EpochMetrics, ...]:
        """The epochs done so far; see `JobHandle.history`."""
        await self.refresh(timeout=timeout)
        if self.evaluation is not None:
            return self.evaluation.history
        epochs = Epochs(self.snapshot.last_sequence)
        async with aclosing(self._follow(0, timeout)) as events:
            async for event in events:
                if epochs.complete(event):
                    break
        return epochs.in_order()

    async def cancel(self, *, timeout: float | None = None) -> Self:
        """End the job for good; see `JobHandle.cancel`."""
        return await self._update(_calls.cancel(self.name), timeout)

    async def pause(self, *, timeout: float | None = None) -> Self:
        """Take the job out of its slot, to go on later from a checkpoint; see `JobHandle.pause`."""
        return await self._update(_calls.pause(self.name), timeout)

    async def resume(self, *, timeout: float | None = None) -> Self:
        """Queue a paused job again; see `JobHandle.resume`."""
        return await self._update(_calls.resume(self.name), timeout)

    async def share(self, *, timeout: float | None = None) -> Self:
        """Let the project's other users see and use the job; see `JobHandle.share`."""
        return await self._update(_calls.share(self.name, True), timeout)

    async def unshare(self, *, timeout: float | None = None) -> Self:
        """Let nobody but admins see the job any more; see `JobHandle.unshare`."""
        return await self._update(_calls.share(self.name, False), timeout)

    async def predict(
        self,
        inputs: Any,
        *,
        samples: int | None = None,
        seed: int = 0,
        batch_size: int | None = None,
        timeout: float | None = None,
    ) -> Prediction:
        """What the job's model says of raw inputs; see `Models.predict`."""
        return await self._client.models.predict(
            self.name, inputs, samples=samples, seed=seed, batch_size=batch_size, timeout=timeout
        )

    async def export(
        self,
        path: str | Path | None = None,
        *,
        format: ExportFormat | None = None,
        fold_batch_norm: bool = False,
        tolerance: float | None = None,
        timeout: float = EXPORT_TIMEOUT,
    ) -> ModelExport:
        """Have the job's model written in another form, with proof, and download it; see `Models.export`."""
        return await self._client.models.export(
            self.name,
            path,
            format=format,
            fold_batch_norm=fold_batch_norm,
            tolerance=tolerance,
            timeout=timeout,
        )

    async def register(
        self,
        name: str,
        *,
        alias: str | None = None,
        shared: bool = False,
        timeout: float = REGISTER_TIMEOUT,
    ) -> ModelVersion:
        """Make the job's model a version of a registered model in MLflow; see `Models.register`."""
        return await self._client.models.register(
            name, self.name, alias=alias, shared=shared, timeout=timeout
        )

    async def delete(self, *, force: bool = False, timeout: float | None = None) -> None:
        """Delete the job, its journal and its files; see `JobHandle.delete`."""
        await self._client._call(_calls.delete(self.name, force=force), timeout)

    async def _update(self, call: Call[TrainingJob], timeout: float | None) -> Self:
        self._snapshot = await self._client._call(call, timeout)
        return self

    async def _follow(self, after: int, timeout: float | None) -> AsyncGenerator[Event, None]:
        client = self._client
        watching = Watching(
            self.name,
            after=after,
            address=client.address,
            patience=client.patience,
            timeout=timeout,
        )
        if after > self.snapshot.last_sequence:
            await self.refresh()  # nobody will tell what happened up to there
        while True:
            stream = client._method("WatchTrainingJob")(watching.open(), timeout=watching.timeout)
            try:
                async for message in stream:
                    event = watching.accept(message)
                    if event is not None:
                        self._snapshot = follow(self._snapshot, event)
                        yield event
                return
            except asyncio.CancelledError:
                client._check_cancelled()
                raise
            except grpc.RpcError as error:
                if watching.finished:
                    return
                pause = watching.interrupted(error)
            finally:
                stream.cancel()
            await asyncio.sleep(pause)
