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
from dropnorm_service.api.names import dataset_id_of
from dropnorm_service.datasets.service import DatasetService, Header
from dropnorm_service.jobs.errors import InvalidRequest

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
        first = await anext(requests, None)
        if first is None or first.WhichOneof("part") != "header":
            raise InvalidRequest.of("header", "the first message of an upload is its header")
        header = Header(
            dataset_id=first.header.dataset_id,
            size_bytes=first.header.size_bytes,
            sha256=first.header.sha256,
            offset=first.header.offset,
        )
        return _message(await self._datasets.upload(header, _chunks(requests, self._received)))

    async def QueryUpload(self, request: pb.QueryUploadRequest, context: Context) -> Any:
        return pb.QueryUploadResponse(received_bytes=self._datasets.received(request.sha256))

    async def ImportDataset(self, request: pb.ImportDatasetRequest, context: Context) -> Any:
        return _message(await self._datasets.import_file(request.dataset_id, request.path))

    async def GetDataset(self, request: pb.GetDatasetRequest, context: Context) -> Any:
        return _message(self._datasets.get(dataset_id_of(request.name)))

    async def ListDatasets(self, request: pb.ListDatasetsRequest, context: Context) -> Any:
        page, token = self._datasets.list(request.page_size, request.page_token, request.filter)
        return pb.ListDatasetsResponse(datasets=map(_message, page), next_page_token=token)

    async def DeleteDataset(self, request: pb.DeleteDatasetRequest, context: Context) -> Any:
        await self._datasets.delete(dataset_id_of(request.name))
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
