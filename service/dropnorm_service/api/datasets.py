"""DatasetService at the edge: convert, call, convert. What is decided is decided in `datasets`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from google.protobuf import empty_pb2

from dropnorm import wire
from dropnorm.results import Dataset
from dropnorm.v1 import dataset_pb2
from dropnorm.v1 import dataset_service_pb2 as pb
from dropnorm.v1.dataset_service_pb2_grpc import DatasetServiceServicer
from dropnorm_service.api.context import caller
from dropnorm_service.api.names import dataset_id_of
from dropnorm_service.api.updates import changes_of
from dropnorm_service.datasets.intake import Header
from dropnorm_service.datasets.service import DatasetService
from dropnorm_service.jobs.errors import InvalidRequest
from dropnorm_service.jobs.wrong_fields import WrongFields

Context = grpc.aio.ServicerContext[Any, Any]

_MAX_CHUNK = 2 * 2**20


class DatasetServicer(DatasetServiceServicer):
    """The rpcs of DatasetService."""

    def __init__(self, datasets: DatasetService, received: Callable[[int], None]) -> None:
        """
        Args:
            datasets: what decides.
            received: told the size of every chunk of an upload.
        """
        self._datasets = datasets
        self._received = received

    async def UploadDataset(
        self, requests: AsyncIterator[pb.UploadDatasetRequest], context: Context
    ) -> Any:
        first = await self._datasets.next_part(requests)
        if first is None or first.WhichOneof("part") != "header":
            raise InvalidRequest.of("header", "the first message of an upload is its header")
        header = Header(
            dataset_id=first.header.dataset_id,
            size_bytes=first.header.size_bytes,
            sha256=first.header.sha256,
            offset=first.header.offset,
            shared=first.header.shared,
        )
        chunks = _chunks(requests, self._received)
        return _message(await self._datasets.upload(caller.get(), header, chunks))

    async def QueryUpload(self, request: pb.QueryUploadRequest, context: Context) -> Any:
        return pb.QueryUploadResponse(
            received_bytes=self._datasets.received(caller.get(), request.sha256)
        )

    async def ImportDataset(self, request: pb.ImportDatasetRequest, context: Context) -> Any:
        dataset = await self._datasets.import_file(
            caller.get(), request.dataset_id, request.path, shared=request.shared
        )
        return _message(dataset)

    async def GetDataset(self, request: pb.GetDatasetRequest, context: Context) -> Any:
        return _message(self._datasets.get(caller.get(), dataset_id_of(request.name)))

    async def ListDatasets(self, request: pb.ListDatasetsRequest, context: Context) -> Any:
        page, token = await self._datasets.list(
            caller.get(), request.page_size, request.page_token, request.filter
        )
        return pb.ListDatasetsResponse(datasets=map(_message, page), next_page_token=token)

    async def UpdateDataset(self, request: pb.UpdateDatasetRequest, context: Context) -> Any:
        wrong = WrongFields()
        with wrong:
            dataset_id = dataset_id_of(request.dataset.name, "dataset.name")
        with wrong:
            changes = changes_of(
                request.dataset, request.update_mask, changeable=("shared",), field="dataset"
            )
        wrong.settle()
        return _message(await self._datasets.share(caller.get(), dataset_id, **changes))

    async def DeleteDataset(self, request: pb.DeleteDatasetRequest, context: Context) -> Any:
        await self._datasets.delete(caller.get(), dataset_id_of(request.name))
        return empty_pb2.Empty()


async def _chunks(
    requests: AsyncIterator[pb.UploadDatasetRequest], received: Callable[[int], None]
) -> AsyncIterator[bytes]:
    async for request in requests:
        if request.WhichOneof("part") != "chunk":
            raise InvalidRequest.of("chunk", "after the header of an upload there are chunks only")
        if len(request.chunk) > _MAX_CHUNK:
            raise InvalidRequest.of("chunk", f"a chunk has at most {_MAX_CHUNK:,} bytes; send more")
        received(len(request.chunk))
        yield request.chunk


def _message(dataset: Dataset) -> dataset_pb2.Dataset:
    return wire.to_message(dataset, dataset_pb2.Dataset)
