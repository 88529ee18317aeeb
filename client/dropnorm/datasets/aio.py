"""`client.datasets` of the AsyncClient: `dropnorm.datasets.client` with `await`."""

# ruff: noqa: ASYNC109 - a timeout here is the call's gRPC deadline, which travels to the service

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from dropnorm.datasets import _requests
from dropnorm.datasets.bundle import Bundle, write_bundle
from dropnorm.results import Dataset
from dropnorm.v1 import dataset_service_pb2 as pb

if TYPE_CHECKING:
    from dropnorm.aio import AsyncClient
    from dropnorm.datasets.arrays import Task
    from dropnorm.datasets.texts import Tokens


class AsyncDatasets:
    """`Datasets` for asyncio. What is documented there is not repeated here."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def upload(
        self,
        name: str,
        x: Any,
        y: Any = None,
        *,
        text: str | None = None,
        target: str | None = None,
        test: tuple[Any, Any] | None = None,
        task: Task | None = None,
        class_names: Sequence[str] | None = None,
        tokens: Tokens = "characters",
        length: int = 128,
        shared: bool = False,
        timeout: float | None = None,
    ) -> Dataset:
        """Upload a data set; see `Datasets.upload`."""
        bundle = await asyncio.to_thread(
            _requests.bundle_of,
            x,
            y,
            text=text,
            target=target,
            test=test,
            task=task,
            class_names=class_names,
            tokens=tokens,
            length=length,
        )
        return await self.upload_bundle(name, bundle, shared=shared, timeout=timeout)

    async def upload_bundle(
        self, name: str, bundle: Bundle, *, shared: bool = False, timeout: float | None = None
    ) -> Dataset:
        """Upload what `dropnorm.datasets` made of files; see `Datasets.upload`."""
        with tempfile.TemporaryDirectory(prefix="dropnorm-") as folder:
            path = Path(folder) / "dataset.safetensors"
            sha256 = await asyncio.to_thread(write_bundle, bundle, path)
            return await self.upload_file(name, path, sha256, shared=shared, timeout=timeout)

    async def upload_file(
        self,
        name: str,
        path: Path,
        sha256: str,
        *,
        shared: bool = False,
        timeout: float | None = None,
    ) -> Dataset:
        """Upload a data set's file; see `Datasets.upload_file`."""
        client, call = self._client, _requests.upload()
        asked = _requests.query(sha256)
        attempts = _requests.UploadAttempts(address=client.address, timeout=timeout)
        while True:
            try:
                answer = await client._method(asked.method)(asked.request, timeout=attempts.timeout)
                received = asked.read(answer)
                attempts.begin_at(received)
                parts = _async_parts(name, path, sha256, received, shared)
                reply = await client._method(call.method)(parts, timeout=attempts.timeout)
            except asyncio.CancelledError:
                client._check_cancelled()
                raise
            except grpc.RpcError as error:
                client._check_open()
                await asyncio.sleep(attempts.pause_after(error))
            else:
                return call.read(reply)

    async def import_file(
        self, name: str, path: str, *, shared: bool = False, timeout: float | None = None
    ) -> Dataset:
        """Make a data set of a file on the service's machine; see `Datasets.import_file`."""
        return await self._client._call(
            _requests.import_file(name, path, shared), _requests.limit(timeout)
        )

    async def get(self, name: str, *, timeout: float | None = None) -> Dataset:
        """A data set by its id or resource name; see `Datasets.get`."""
        return await self._client._call(_requests.get(name), timeout)

    async def list(
        self, *, filter: str = "", timeout: float | None = None
    ) -> AsyncIterator[Dataset]:
        """Every uploaded data set, or those that a filter keeps, by id; see `Datasets.list`."""
        async for dataset in self._client._pages(_requests.list_datasets(filter), timeout):
            yield dataset

    async def share(self, name: str, *, timeout: float | None = None) -> Dataset:
        """Let the project's other users see a data set and train on it; see `Datasets.share`."""
        return await self._client._call(_requests.share(name, True), timeout)

    async def unshare(self, name: str, *, timeout: float | None = None) -> Dataset:
        """Let nobody but admins see a data set any more; see `Datasets.unshare`."""
        return await self._client._call(_requests.share(name, False), timeout)

    async def delete(self, name: str, *, timeout: float | None = None) -> None:
        """Delete a data set; see `Datasets.delete`."""
        await self._client._call(_requests.delete(name), timeout)


async def _async_parts(
    name: str, path: Path, sha256: str, offset: int, shared: bool
) -> AsyncIterator[pb.UploadDatasetRequest]:
    for part in _requests.parts(name, path, sha256, offset, shared):
        yield part
