"""Client: the service as plain Python objects. For asyncio see `dropnorm.aio`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from dropnorm import _calls
from dropnorm._arguments import job_name, seconds
from dropnorm._calls import Attempts, Call, Page
from dropnorm._connection import TLS, Connection
from dropnorm.datasets import Datasets
from dropnorm.errors import ClientClosed
from dropnorm.job_handle import JobHandle
from dropnorm.models import Models
from dropnorm.results import (
    Plan,
    TrainingJob,
    Worker,
)
from dropnorm.spec import TrainingSpec

Result = TypeVar("Result")


class Client:
    """A connection to a dropnorm service. Close it, or use it as a context manager. Safe to share between threads.

    Nothing is sent before the first call. A call is answered within its timeout or raises DeadlineExceeded; when the
    service cannot be reached, calls that are safe to repeat are tried again a few times within some seconds, and then
    raise Unavailable.

    Args:
        address: `host:port` of the service; absent: DROPNORM_ADDRESS, else localhost:50051.
        token: what the service knows the caller by; absent: DROPNORM_TOKEN, or what is in the file of
            DROPNORM_TOKEN_FILE; empty: none. It is sent in plain text to this very machine alone.
        tls: speak TLS, with files or, as True, trusting whom the system trusts; absent: as DROPNORM_TLS=1,
            DROPNORM_TLS_CA, DROPNORM_TLS_CERTIFICATE and DROPNORM_TLS_KEY say; False: plain text.
        insecure: send the token in plain text to any machine; the network itself keeps others out.
        timeout: seconds each call may take, unless it is given a timeout of its own; infinite: no limit.
        patience: seconds after which `watch` and `result` give up a service that they lost and heard nothing of.

    Every method raises the exceptions of `dropnorm.errors`: InvalidRequest with every wrong field, NotFound,
    WrongState, Unavailable and so on.
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
        connection = Connection.resolve(address, token=token, tls=tls, insecure=insecure)
        self.address = connection.address
        self.timeout = timeout
        self.patience = patience
        seconds("timeout", timeout)
        seconds("patience", patience)
        self._closed = False
        self._channel = connection.channel(grpc)
        self._methods = _calls.methods(self._channel, connection.metadata)

    @property
    def datasets(self) -> Datasets:
        """Your own data sets: `upload`, `get`, `list`, `delete`."""
        return Datasets(self)

    @property
    def models(self) -> Models:
        """The models that jobs made."""
        return Models(self)

    def train(
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
    ) -> JobHandle:
        """Queue a job. When this returns, the job is on the service's disk and will be run.

        Args:
            spec: what to train.
            name: name for people; absent: the job's id.
            experiment: MLflow experiment its run goes to; absent: `default`.
            labels: for filtering.
            priority: -1000 to 1000, higher first; absent: 0.
            shared: whether the project's other users may see and use the job, but not change it.
            ttl: seconds for which it is kept after its end; absent: as long as the service keeps jobs.
            job_id: the last part of the resource name, `[a-z]([a-z0-9-]{0,61}[a-z0-9])?`; absent: one is made.
            request_id: the same id with the same content gives the same job, however often it is sent; absent: a new
                one, under which a lost connection is retried.
            timeout: seconds this call may take.

        Raises:
            InvalidRequest: names every wrong field, of the shapes in the network too.
            AlreadyExists: `job_id` is taken.
            ResourceExhausted: as many of your jobs wait as may, and none began within the timeout.
        """
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
        return JobHandle(self, self._call(call, timeout))

    def validate(
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
        """Check everything that `train` would, and create nothing.

        Returns:
            The job as it would have been created.

        Raises:
            InvalidRequest: names every wrong field.
            AlreadyExists: `job_id` is taken.
        """
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
        return self._call(call, timeout)

    def plan(self, spec: TrainingSpec, *, timeout: float | None = None) -> Plan:
        """What a spec comes to, before anything is spent: layers, steps, memory, and what is probably not wished."""
        return self._call(_calls.plan(spec), timeout)

    def job(self, job: str, *, timeout: float | None = None) -> JobHandle:
        """A job by its id or resource name.

        Raises:
            NotFound: there is none.
        """
        return JobHandle(self, self._call(_calls.get(job_name(job)), timeout))

    def jobs(
        self,
        *,
        filter: str = "",
        order_by: str = "",
        page_size: int = 0,
        evaluations: bool = False,
        timeout: float | None = None,
    ) -> Iterator[JobHandle]:
        """Every job, or those that a filter keeps, asked for page by page as they are iterated.

        Args:
            filter: AIP-160, `state = RUNNING AND labels.team = "vision"`; empty: all.
            order_by: AIP-132, `priority desc, create_time`; empty: newest first.
            page_size: jobs per request, up to 1000; 0: the service's choice.
            evaluations: bring the evaluations of finished jobs too; otherwise `refresh()` does.
            timeout: seconds each page may take.
        """
        listing = _calls.list_jobs(
            filter=filter, order_by=order_by, page_size=page_size, evaluations=evaluations
        )
        for job in self._pages(listing, timeout):
            yield JobHandle(self, job)

    def workers(self, *, timeout: float | None = None) -> tuple[Worker, ...]:
        """The machines that run jobs, their slots, and what each slot runs."""
        return tuple(self._pages(_calls.list_workers, timeout))

    def close(self) -> None:
        """Close the connection; running watches end with ClientClosed. Jobs are not touched."""
        self._closed = True
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.address}{' (closed)' if self._closed else ''}>"

    def _method(self, name: str) -> Any:
        self._check_open()
        return self._methods[name]

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosed(f"This client of {self.address} is closed; make a new one.")

    def _call(self, call: Call[Result], timeout: float | None) -> Result:
        attempts = Attempts(
            call, address=self.address, timeout=self.timeout if timeout is None else timeout
        )
        while True:
            try:
                reply = self._method(call.method)(call.request, timeout=attempts.timeout)
            except grpc.RpcError as error:
                self._check_open()
                time.sleep(attempts.pause_after(error))
            else:
                return call.read(reply)

    def _pages(
        self, listing: Callable[[str], Call[Page[Result]]], timeout: float | None
    ) -> Iterator[Result]:
        token, more = "", True
        while more:
            items, token = self._call(listing(token), timeout)
            yield from items
            more = token != ""
