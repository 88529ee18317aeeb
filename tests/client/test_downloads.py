"""Files of exports on their way: whole, checked, and taken up again where a connection broke."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest

import dropnorm as dn
from dropnorm import wire
from dropnorm.v1 import model_pb2
from dropnorm.v1 import model_service_pb2 as pb
from dropnorm.v1.model_service_pb2_grpc import (
    ModelServiceServicer,
    add_ModelServiceServicer_to_server,
)

CONTENT = bytes(range(256)) * 40
NAME = "trainingJobs/a/exports/onnx"
EXPORT = dn.ModelExport(
    name=NAME,
    settings=dn.ExportSettings(format="onnx"),
    file_name="model.onnx",
    size_bytes=len(CONTENT),
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    folded_norms=0,
    kept_norms=0,
    removed_dropouts=0,
    proof=dn.ExportProof(
        samples=1,
        largest_deviation=0.0,
        largest_output=1.0,
        batch_size=1,
        threads=1,
        milliseconds=1.0,
        original_milliseconds=1.0,
    ),
    create_time=datetime(2025, 11, 25, tzinfo=UTC),
)


class Service(ModelServiceServicer):
    """Gives out one file, whose stream breaks after so many pieces, once for each entry of `breaks`."""

    def __init__(self) -> None:
        self.content = CONTENT
        self.breaks: list[int] = []
        self.offsets: list[int] = []

    async def GetModelExport(self, request: Any, context: Any) -> Any:
        return wire.to_message(EXPORT, model_pb2.ModelExport)

    async def DownloadModelExport(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.offsets.append(request.offset)
        limit = self.breaks.pop(0) if self.breaks else None
        for number, start in enumerate(range(request.offset, len(self.content), 1000)):
            if number == limit:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "broken off")
            data = self.content[start : start + 1000]
            yield pb.DownloadModelExportResponse(offset=start, data=data)


@pytest.fixture
async def service() -> AsyncIterator[tuple[Service, dn.AsyncClient]]:
    served = Service()  # type: ignore[abstract]  # it answers what these tests ask, and nothing else
    server = grpc.aio.server()
    add_ModelServiceServicer_to_server(served, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with dn.AsyncClient(f"127.0.0.1:{port}") as client:
        yield served, client
    await server.stop(None)


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_a_broken_download_goes_on_where_it_was(service, tmp_path: Path):
    served, client = service
    served.breaks = [3, 0, 2]
    export = await client.models.download(NAME, tmp_path)

    assert export == EXPORT
    assert (tmp_path / "model.onnx").read_bytes() == CONTENT
    assert served.offsets == [0, 3000, 3000, 5000]
    assert names(tmp_path) == ["model.onnx"]


async def test_another_file_is_refused_and_the_old_one_stays(service, tmp_path: Path):
    served, client = service
    served.content = CONTENT[::-1]
    (tmp_path / "mine.onnx").write_text("old")
    with pytest.raises(dn.Internal, match="its SHA-256 differs"):
        await client.models.download(NAME, tmp_path / "mine.onnx")

    assert (tmp_path / "mine.onnx").read_text() == "old"
    assert names(tmp_path) == ["mine.onnx"]


async def test_a_service_that_stays_away_is_given_up(service, tmp_path: Path):
    served, client = service
    served.breaks = [1] * 20
    with pytest.raises(dn.Unavailable):
        await client.models.download(NAME, tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("missing/model.onnx", "there is no folder .*missing"),
        ("file/model.onnx", "file is no folder"),
        (f"{'x' * 300}.onnx", "file name too long"),
        ("a\0b.onnx", "null"),
    ],
)
async def test_a_path_that_takes_no_file_is_named_before_anything_is_asked(
    service, tmp_path: Path, path: str, text: str
):
    served, client = service
    (tmp_path / "file").write_text("")
    asked = (
        client.models.export("trainingJobs/a", tmp_path / path),
        client.models.download(NAME, tmp_path / path),
    )
    for call in asked:
        with pytest.raises(dn.InvalidRequest, match=f"cannot be written: .*{text}") as caught:
            await call
        [problem] = caught.value.problems
        assert problem.field == "path"
        assert str(tmp_path / path) in problem.message
    assert served.offsets == []
    assert names(tmp_path) == ["file"]


async def test_what_is_no_path_is_named(service):
    _, client = service
    with pytest.raises(dn.InvalidRequest, match="give the path of a file or a folder, not 3"):
        await client.models.export("trainingJobs/a", 3)
