"""The half that both clients share: a data set's file in parts, requests, replies. No input or output but of files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from dropnorm import wire
from dropnorm._arguments import request
from dropnorm._calls import SHARED, Attempts, Call, Page, backoff
from dropnorm.datasets.bundle import Bundle
from dropnorm.datasets.errors import InvalidData
from dropnorm.results import Dataset
from dropnorm.v1 import dataset_pb2
from dropnorm.v1 import dataset_service_pb2 as pb

if TYPE_CHECKING:
    from dropnorm.datasets.arrays import Task
    from dropnorm.datasets.texts import Tokens

_CHUNK = 1 << 20


def bundle_of(
    x: Any,
    y: Any,
    *,
    text: str | None,
    target: str | None,
    test: tuple[Any, Any] | None,
    task: Task | None,
    class_names: Sequence[str] | None,
    tokens: Tokens,
    length: int,
) -> Bundle:
    """The data set of whatever was handed to `upload`."""
    same: dict[str, Any] = {"test": test, "task": task, "class_names": class_names}
    if hasattr(x, "columns"):  # a pandas frame
        from dropnorm.datasets.tables import from_frame, from_text_column

        if text is None:
            return from_frame(x, y, target=target, **same)
        if y is not None:
            raise InvalidData("text takes the targets from the frame; name their column by target.")
        return from_text_column(x, text, target=target, tokens=tokens, length=length, **same)
    if target is not None or text is not None:
        raise InvalidData("target and text name columns of a pandas frame; give arrays as X and y.")
    if _is_text(x):
        from dropnorm.datasets.texts import from_labelled

        return from_labelled(x, y, tokens=tokens, length=length, **same)
    from dropnorm.datasets.arrays import from_arrays

    return from_arrays(x, y, **same)


def _is_text(x: Any) -> bool:
    """Whether samples are texts: a list, an array or a series of them."""
    if getattr(x, "ndim", 1) != 1 or isinstance(x, str):
        return False
    first = next(iter(x), None) if hasattr(x, "__iter__") else None
    return isinstance(first, str)


def parts(
    name: str, path: Path, sha256: str, offset: int, shared: bool
) -> Iterator[pb.UploadDatasetRequest]:
    """An upload in messages, from a byte on."""
    yield _header(name, path, sha256, offset, shared)
    with path.open("rb") as file:
        file.seek(offset)
        while data := file.read(_CHUNK):
            yield pb.UploadDatasetRequest(chunk=data)


def _header(
    name: str, path: Path, sha256: str, offset: int, shared: bool
) -> pb.UploadDatasetRequest:
    header = request(
        pb.UploadHeader,
        dataset_id=name,
        size_bytes=path.stat().st_size,
        sha256=sha256,
        offset=offset,
        shared=shared,
    )
    return pb.UploadDatasetRequest(header=header)


class UploadAttempts(Attempts):
    """Attempts at an upload: one that got further than those before counts as the first, and patience is longer.

    A connection that broke may be known to the client before the service knows, which then says that the file is being
    uploaded; that is waited for too.
    """

    PATIENCE = 120.0
    """Seconds to go on without a byte further, once the service was there."""

    def __init__(self, *, address: str, timeout: float | None) -> None:
        super().__init__(upload(), address=address, timeout=limit(timeout))
        self._received = -1
        self._patient_until = 0.0

    def begin_at(self, received: int) -> None:
        """Say how many bytes the service has."""
        if received > self._received:
            self._received, self._made = received, 0
            self._patient_until = time.monotonic() + self.PATIENCE

    def pause_after(self, error: grpc.RpcError) -> float:
        """Seconds to wait before the next attempt.

        Raises:
            DropnormError: there is no next attempt.
        """
        passing = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED)
        left = self.timeout
        now = time.monotonic()
        if passing and now < self._patient_until and (left is None or left > self.LONGEST_PAUSE):
            self._made += 1
            return backoff(self._made, first=self.FIRST_PAUSE, longest=self.LONGEST_PAUSE)
        return super().pause_after(error)


def limit(timeout: float | None) -> float:
    """Seconds an upload may take."""
    return float("inf") if timeout is None else timeout


def upload() -> Call[Dataset]:
    """UploadDataset, whose requests are `parts`."""
    return Call(method="UploadDataset", request=pb.UploadDatasetRequest(), read=_read)


def query(sha256: str) -> Call[int]:
    """QueryUpload."""
    asked = request(pb.QueryUploadRequest, sha256=sha256)
    return Call(method="QueryUpload", request=asked, read=lambda reply: int(reply.received_bytes))


def import_file(name: str, path: str, shared: bool) -> Call[Dataset]:
    """ImportDataset."""
    asked = request(pb.ImportDatasetRequest, dataset_id=name, path=path, shared=shared)
    return Call(method="ImportDataset", request=asked, read=_read)


def get(name: str) -> Call[Dataset]:
    """GetDataset."""
    asked = request(pb.GetDatasetRequest, name=_resource(name))
    return Call(method="GetDataset", request=asked, read=_read)


def share(name: str, shared: bool) -> Call[Dataset]:
    """UpdateDataset."""
    dataset = request(dataset_pb2.Dataset, name=_resource(name), shared=shared)
    asked = request(pb.UpdateDatasetRequest, dataset=dataset, update_mask=SHARED)
    return Call(method="UpdateDataset", request=asked, read=_read)


def delete(name: str) -> Call[None]:
    """DeleteDataset."""
    asked = request(pb.DeleteDatasetRequest, name=_resource(name))
    # A repeat would find nothing, and say so of a data set that was deleted.
    return Call(method="DeleteDataset", request=asked, read=lambda _: None, repeatable=False)


def list_datasets(filter: str) -> Callable[[str], Call[Page[Dataset]]]:
    """ListDatasets: the call for the page behind a token."""

    def call(page_token: str) -> Call[Page[Dataset]]:
        asked = request(pb.ListDatasetsRequest, page_token=page_token, filter=filter)
        return Call(method="ListDatasets", request=asked, read=_read_page)

    return call


def _read(message: dataset_pb2.Dataset) -> Dataset:
    return wire.from_message(message, Dataset)


def _read_page(message: pb.ListDatasetsResponse) -> Page[Dataset]:
    return tuple(map(_read, message.datasets)), message.next_page_token


def _resource(name: str) -> str:
    return name if name.startswith("datasets/") else f"datasets/{name}"
