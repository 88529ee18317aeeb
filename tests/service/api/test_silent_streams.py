"""Streams on which nobody says anything: they end, and who may not open one hears so at once."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.service.api.details import failure
from tests.service.api.guarded import Guarded, authorization, guarded
from tests.service.datasets.folders import Folder
from tests.service.jobs.bench import Bench
from tests.service.jobs.conftest import bench, store

from dropnorm_service import audit
from dropnorm_service.api import messages
from dropnorm_service.jobs.callers import Role
from dropnorm_service.store import SqlJobStore

__all__ = ["bench", "store"]

UPLOAD = "/dropnorm.v1.DatasetService/UploadDataset"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


@pytest.fixture
async def service(bench: Bench, store: SqlJobStore, tmp_path: Path) -> AsyncIterator[Guarded]:
    uploads = Folder(tmp_path / "uploads", idle_timeout=0.2)
    async with guarded(bench, store, tmp_path, uploads=uploads) as service:
        yield service


async def opened(service: Guarded, role: Role) -> Any:
    """An upload of which not even the header comes."""
    _, bearer = await service.token(role)
    upload: Any = service.channel.stream_unary(UPLOAD)
    return upload(metadata=authorization(bearer), timeout=30)


async def test_who_may_not_upload_hears_so_before_he_sends_anything(
    service: Guarded, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, logger=audit.LOGGER)
    error = await failure(await opened(service, Role.VIEWER))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    [record] = [each for each in caplog.records if each.name == audit.LOGGER]
    assert (record.action, record.outcome) == ("UploadDataset", "PERMISSION_DENIED")  # type: ignore[attr-defined]


async def test_an_upload_without_a_header_is_broken_off(service: Guarded):
    error = await failure(await opened(service, Role.USER))
    assert error.code() is grpc.StatusCode.ABORTED
    assert "Nothing has come" in str(error.details())


async def test_a_conversation_in_which_nothing_is_asked_ends(
    service: Guarded, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(messages, "IDLE", 0.1)
    _, bearer = await service.token(Role.VIEWER)
    converse: Any = service.channel.stream_stream(REFLECTION)
    call = converse(metadata=authorization(bearer), timeout=30)
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK
