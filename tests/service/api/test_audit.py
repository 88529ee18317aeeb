"""The audit log: every change leaves exactly one record, also one that is refused."""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from tests.service.api.details import failure
from tests.service.api.guarded import Guarded, guarded
from tests.service.jobs.bench import SPEC, Bench
from tests.service.jobs.conftest import bench, store

from dropnorm import wire
from dropnorm.spec import Submission
from dropnorm.v1 import training_job_pb2
from dropnorm.v1 import training_service_pb2 as pb
from dropnorm_service import audit
from dropnorm_service.api.authorization import RULES
from dropnorm_service.audit_file import AuditFile
from dropnorm_service.jobs.callers import Role
from dropnorm_service.store import SqlJobStore

__all__ = ["bench", "store"]

SERVICE = "/dropnorm.v1.TrainingService"
CHANGES = sorted(method for method, rule in RULES.items() if rule.changes)
LOOKS = sorted(method for method, rule in RULES.items() if rule.role and not rule.changes)


@pytest.fixture
async def service(bench: Bench, store: SqlJobStore, tmp_path: Path) -> AsyncIterator[Guarded]:
    async with guarded(bench, store, tmp_path) as service:
        yield service


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, garbage_stays: None) -> pytest.LogCaptureFixture:
    """The audit log."""
    caplog.set_level(logging.INFO, logger=audit.LOGGER)
    return caplog


def records(log: pytest.LogCaptureFixture) -> list[Any]:
    return [record for record in log.records if record.name == audit.LOGGER]


def heard(log: pytest.LogCaptureFixture) -> list[tuple[str, str, str, str]]:
    return [(each.action, each.resource, each.outcome, each.user) for each in records(log)]


@pytest.mark.parametrize("method", CHANGES)
async def test_a_change_leaves_one_record_whatever_becomes_of_it(
    service: Guarded, log: pytest.LogCaptureFixture, method: str
):
    action = method.rpartition("/")[2]
    token, user = await service.token(Role.USER)
    _, viewer = await service.token(Role.VIEWER)
    await failure(service.call(method, user))
    await failure(service.call(method, viewer))
    await failure(service.call(method))

    assert heard(log) == [
        (action, "", "INVALID_ARGUMENT", "user"),
        (action, "", "PERMISSION_DENIED", "viewer"),
        (action, "", "UNAUTHENTICATED", ""),
    ]
    first = records(log)[0]
    assert first.token == token.id
    assert first.peer.startswith("ipv4:127.0.0.1:")


@pytest.mark.parametrize("method", LOOKS)
async def test_a_look_leaves_none(service: Guarded, log: pytest.LogCaptureFixture, method: str):
    _, bearer = await service.token(Role.ADMIN)
    with contextlib.suppress(grpc.aio.AioRpcError):  # what it looks for is not there
        await service.call(method, bearer)

    assert heard(log) == []


async def test_a_record_names_what_was_changed(service: Guarded, log: pytest.LogCaptureFixture):
    _, bearer = await service.token(Role.ADMIN)
    wanted = wire.to_message(Submission(spec=SPEC), training_job_pb2.TrainingJob)
    made = pb.CreateTrainingJobRequest(training_job=wanted).SerializeToString()
    rehearsed = pb.CreateTrainingJobRequest(training_job=wanted, validate_only=True)

    await service.call(f"{SERVICE}/CreateTrainingJob", bearer, rehearsed.SerializeToString())
    reply = await service.call(f"{SERVICE}/CreateTrainingJob", bearer, made)
    name = training_job_pb2.TrainingJob.FromString(reply).name
    deletion = pb.DeleteTrainingJobRequest(name=name)
    await failure(
        service.call(f"{SERVICE}/DeleteTrainingJob", bearer, deletion.SerializeToString())
    )
    deletion.force = True
    await service.call(f"{SERVICE}/DeleteTrainingJob", bearer, deletion.SerializeToString())

    assert heard(log) == [
        ("CreateTrainingJob", name, "OK", "admin"),
        ("DeleteTrainingJob", name, "FAILED_PRECONDITION", "admin"),
        ("DeleteTrainingJob", name, "OK", "admin"),
    ]


async def test_strangers_cannot_fill_the_log(
    service: Guarded, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    now = time.monotonic()
    monkeypatch.setattr(audit, "time", SimpleNamespace(monotonic=lambda: now))
    for _ in range(60):
        await failure(service.call(LOOKS[0]))

    assert len(heard(log)) == 20
    assert len(log.records) == len(heard(log))  # nor any other log


def test_a_record_says_how_many_were_left_out(monkeypatch: pytest.MonkeyPatch):
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    limiter = audit.Limiter(burst=2, rate=1.0)

    assert [limiter.admit() for _ in range(5)] == [0, 0, None, None, None]
    now = 1.0
    assert limiter.admit() == 3


async def test_a_change_is_answered_though_its_record_cannot_be_written(
    service: Guarded, log: pytest.LogCaptureFixture, tmp_path: Path
):
    (tmp_path / "there").mkdir()
    file = AuditFile(tmp_path / "there" / "audit.jsonl")
    logging.getLogger(audit.LOGGER).addHandler(file)
    shutil.rmtree(tmp_path / "there")
    try:
        _, bearer = await service.token()
        wanted = wire.to_message(Submission(spec=SPEC), training_job_pb2.TrainingJob)
        request = pb.CreateTrainingJobRequest(training_job=wanted)
        await service.call(f"{SERVICE}/CreateTrainingJob", bearer, request.SerializeToString())
    finally:
        logging.getLogger(audit.LOGGER).removeHandler(file)
        file.close()
    assert file.lost == len(records(log)) == 1
