"""Whose things are whose, over the wire: every rpc, for their owner and everybody else, of what is shared and not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from tests.service.api.details import details, failure, status_of
from tests.service.api.guarded import METHODS, Guarded, guarded
from tests.service.callers import ADA, BOB, EVE, ROOT
from tests.service.datasets.folders import Folder
from tests.service.datasets.test_dataset_service import chunks, file_of, header
from tests.service.jobs.bench import SPEC, Bench
from tests.service.jobs.conftest import store
from tests.service.jobs.registry import BenchRegistry

from dropnorm import wire
from dropnorm.results import Plan, State, Tracked
from dropnorm.spec import Data, Submission, TrainingSpec
from dropnorm.v1 import (
    dataset_pb2,
    dataset_service_pb2,
    model_pb2,
    model_service_pb2,
    training_job_pb2,
    training_service_pb2,
    training_spec_pb2,
    worker_pb2,
)
from dropnorm_service.jobs.callers import Caller
from dropnorm_service.jobs.ports import MODEL
from dropnorm_service.store import SqlJobStore
from dropnorm_service.training import plan
from dropnorm_service.workers.child.data import dataset_cache
from dropnorm_service.workers.messages import DataSettings

__all__ = ["store"]

Code = grpc.StatusCode
USERS = (ADA, BOB, EVE, ROOT)
COUNT = iter(range(10**6))
INPUTS = model_pb2.Tensor(shape=[1, 2], dtype=model_pb2.Tensor.DTYPE_FLOAT32, data=bytes(8))
EXPORT = model_pb2.ExportSettings(format=model_pb2.ExportSettings.EXPORT_FORMAT_ONNX)
MASK = FieldMask(paths=["shared"])


class Kind(Enum):
    """What a method does with something that may be another's."""

    LOOKS = auto()
    """Reads it, or uses it as who reads may."""
    USES = auto()
    """Makes something of one's own with it."""
    CHANGES = auto()
    LISTS = auto()
    """Tells which there are; the reply has the names of those that the caller sees."""
    OWN = auto()
    """Deals with the caller's own things alone; has tests of its own below."""


@dataclass(frozen=True)
class Case:
    """How a method is called about a thing of some id."""

    kind: Kind
    make: str = "waiting"
    """What the thing is: a method of World."""
    request: Callable[[str], Message] = lambda id: training_service_pb2.ListWorkersRequest()
    hidden: Code = Code.NOT_FOUND
    """What is told of a thing that is not to be seen."""


def _job(request: Callable[..., Message], **more: Any) -> Callable[[str], Message]:
    return lambda id: request(name=f"trainingJobs/{id}", **more)


def _dataset(request: Callable[..., Message]) -> Callable[[str], Message]:
    return lambda id: request(name=f"datasets/{id}")


def _spec(id: str) -> training_spec_pb2.TrainingSpec:
    spec = SPEC.model_copy(update={"data": Data(dataset=id)})
    return wire.to_message(spec, training_spec_pb2.TrainingSpec, only_set=True)


training, datasets, models = training_service_pb2, dataset_service_pb2, model_service_pb2

CASES = {
    "CreateTrainingJob": Case(
        Kind.USES,
        "dataset",
        lambda id: training.CreateTrainingJobRequest(
            training_job=training_job_pb2.TrainingJob(spec=_spec(id))
        ),
        hidden=Code.INVALID_ARGUMENT,
    ),
    "GetTrainingJob": Case(Kind.LOOKS, "waiting", _job(training.GetTrainingJobRequest)),
    "ListTrainingJobs": Case(
        Kind.LISTS, "waiting", lambda id: training.ListTrainingJobsRequest(page_size=1000)
    ),
    "WatchTrainingJob": Case(Kind.LOOKS, "done", _job(training.WatchTrainingJobRequest)),
    "CancelTrainingJob": Case(Kind.CHANGES, "waiting", _job(training.CancelTrainingJobRequest)),
    "PauseTrainingJob": Case(Kind.CHANGES, "waiting", _job(training.PauseTrainingJobRequest)),
    "ResumeTrainingJob": Case(Kind.CHANGES, "waiting", _job(training.ResumeTrainingJobRequest)),
    "DeleteTrainingJob": Case(
        Kind.CHANGES, "waiting", _job(training.DeleteTrainingJobRequest, force=True)
    ),
    "PlanTrainingJob": Case(
        Kind.LOOKS,
        "dataset",
        lambda id: training.PlanTrainingJobRequest(spec=_spec(id)),
        hidden=Code.INVALID_ARGUMENT,
    ),
    "UpdateTrainingJob": Case(
        Kind.CHANGES,
        "waiting",
        lambda id: training.UpdateTrainingJobRequest(
            training_job=training_job_pb2.TrainingJob(name=f"trainingJobs/{id}"), update_mask=MASK
        ),
    ),
    "ListWorkers": Case(Kind.OWN),
    "UploadDataset": Case(Kind.OWN),
    "QueryUpload": Case(Kind.OWN),
    "ImportDataset": Case(Kind.OWN),
    "GetDataset": Case(Kind.LOOKS, "dataset", _dataset(datasets.GetDatasetRequest)),
    "ListDatasets": Case(
        Kind.LISTS, "dataset", lambda id: datasets.ListDatasetsRequest(page_size=1000)
    ),
    "UpdateDataset": Case(
        Kind.CHANGES,
        "dataset",
        lambda id: datasets.UpdateDatasetRequest(
            dataset=dataset_pb2.Dataset(name=f"datasets/{id}"), update_mask=MASK
        ),
    ),
    "DeleteDataset": Case(Kind.CHANGES, "dataset", _dataset(datasets.DeleteDatasetRequest)),
    "Predict": Case(
        Kind.LOOKS,
        "done",
        lambda id: models.PredictRequest(model=f"trainingJobs/{id}", inputs=INPUTS),
    ),
    "ExportModel": Case(
        Kind.USES,
        "done",
        lambda id: models.ExportModelRequest(model=f"trainingJobs/{id}", settings=EXPORT),
    ),
    "GetModelExport": Case(
        Kind.LOOKS,
        "done",
        lambda id: models.GetModelExportRequest(name=f"trainingJobs/{id}/exports/onnx"),
    ),
    "DownloadModelExport": Case(
        Kind.LOOKS,
        "done",
        lambda id: models.DownloadModelExportRequest(name=f"trainingJobs/{id}/exports/onnx"),
    ),
    "RegisterModel": Case(
        Kind.USES,
        "done",
        lambda id: models.RegisterModelRequest(
            model_id=f"of-{id}-{next(COUNT)}", training_job=f"trainingJobs/{id}"
        ),
    ),
    "GetModel": Case(Kind.LOOKS, "model", lambda id: models.GetModelRequest(name=f"models/{id}")),
    "ListModels": Case(Kind.LISTS, "model", lambda id: models.ListModelsRequest(page_size=1000)),
    "UpdateModel": Case(
        Kind.CHANGES,
        "model",
        lambda id: models.UpdateModelRequest(
            model=model_pb2.Model(name=f"models/{id}"), update_mask=MASK
        ),
    ),
    "SetModelAlias": Case(
        Kind.CHANGES,
        "model",
        lambda id: models.SetModelAliasRequest(name=f"models/{id}@1", alias="best"),
    ),
    "DeleteModelAlias": Case(
        Kind.CHANGES,
        "model",
        lambda id: models.DeleteModelAliasRequest(name=f"models/{id}@champion"),
    ),
}
"""Every rpc of the contract."""

OURS = {name.rpartition("/")[2]: name for name in METHODS if name.startswith("/dropnorm.")}


class DirectPlanner:
    """What the planner's process does, without the process.

    Args:
        folder: has the folder of uploads.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def plan(self, spec: TrainingSpec, *, uploads: bool = True, user: str = "") -> Plan:
        settings = DataSettings(
            cache=self._folder / "cache", uploads=self._folder / "uploads" if uploads else None
        )
        return plan(spec, dataset_cache(settings).summarize(spec))


@dataclass
class World:
    """Ada's things, and who may ask for them."""

    bench: Bench
    uploads: Folder
    service: Guarded
    folder: Path
    registry: BenchRegistry
    bearers: dict[str, str] = field(default_factory=dict)
    _ids: Any = field(default_factory=lambda: iter(range(10**6)))

    def id(self) -> str:
        """A new id; all are of one length."""
        return f"ada-{next(self._ids):04}"

    async def waiting(self, shared: bool) -> str:
        """A job that waits for ever: no slot ever suits it."""
        job = await self.bench.jobs.create(
            ADA, Submission(spec=SPEC, shared=shared), job_id=self.id()
        )
        return job.id

    async def done(self, shared: bool) -> str:
        """A job that has succeeded and has a model, an export, and a run in MLflow."""
        self.bench.executor.free["cpu"] = 1
        job = await self.bench.jobs.create(
            ADA, Submission(spec=SPEC, shared=shared), job_id=self.id()
        )
        attempt = await self.bench.launched()
        model = attempt.launch.folder / MODEL
        model.mkdir()
        (model / "model.json").write_text(job.id)
        attempt.succeed()
        await self.bench.reached(job, State.SUCCEEDED)
        await attempt.closed.wait()
        self.bench.executor.free["cpu"] = 0
        await self.bench.jobs.record_tracking(
            job.id, Tracked(mlflow_experiment_id="1", mlflow_run_id="run")
        )
        await self.call(ADA, "ExportModel", CASES["ExportModel"].request(job.id))
        return job.id

    async def dataset(self, shared: bool) -> str:
        data = file_of(self.folder / "file")
        sent = header(data, self.id(), shared=shared)
        return (await self.uploads.datasets.upload(ADA, sent, chunks(data))).id

    async def model(self, shared: bool) -> str:
        job, id = await self.done(shared=False), self.id()
        request = models.RegisterModelRequest(
            model_id=id, training_job=f"trainingJobs/{job}", alias="champion", shared=shared
        )
        await self.call(ADA, "RegisterModel", request)
        return id

    async def call(self, caller: Caller, method: str, request: Message) -> bytes:
        return bytes(
            await self.service.call(
                OURS[method], self.bearers[caller.user], request.SerializeToString()
            )
        )

    async def told(self, caller: Caller, method: str, request: Message) -> grpc.aio.AioRpcError:
        return await failure(self.call(caller, method, request))


@pytest.fixture
async def world(store: SqlJobStore, tmp_path: Path) -> AsyncIterator[World]:
    uploads, registry = Folder(tmp_path / "uploads"), BenchRegistry()
    bench = Bench(
        store,
        tmp_path / "jobs",
        cpus=1,
        planner=DirectPlanner(tmp_path),
        data_hidden=uploads.datasets.hidden,
    )
    bench.executor.free["cpu"] = 0
    await bench.service.start()
    async with guarded(bench, store, tmp_path, uploads=uploads, registry=registry) as service:
        world = World(bench, uploads, service, tmp_path, registry)
        for caller in USERS:
            _, world.bearers[caller.user] = await service.tokens.create(
                caller.user, caller.role, None
            )
        yield world
    await bench.service.stop(grace=0.0)


def test_every_rpc_has_its_row():
    assert set(CASES) == set(OURS)


def of(kind: Kind) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "method", [method for method, case in CASES.items() if case.kind is kind]
    )


class TestWhoMay:
    """Each method about a thing of Ada's: of Bob, who is a user as she is, of a viewer and of an admin."""

    @of(Kind.LOOKS)
    async def test_look(self, world: World, method: str):
        case = CASES[method]
        own, shared = [await getattr(world, case.make)(each) for each in (False, True)]
        for caller in USERS:
            await world.call(caller, method, case.request(shared))
        for caller in (ADA, ROOT):
            await world.call(caller, method, case.request(own))
        for caller in (BOB, EVE):
            await self.check_hidden(world, caller, method, own)

    @of(Kind.USES)
    async def test_use(self, world: World, method: str):
        case = CASES[method]
        own, shared = [await getattr(world, case.make)(each) for each in (False, True)]
        for caller in (ADA, BOB, ROOT):
            await world.call(caller, method, case.request(shared))
        for caller in (ADA, ROOT):
            await world.call(caller, method, case.request(own))
        await self.check_hidden(world, BOB, method, own)
        for each in (own, shared):
            await self.check_role(world, method, each)

    @of(Kind.CHANGES)
    async def test_change(self, world: World, method: str):
        case = CASES[method]
        own, shared = [await getattr(world, case.make)(each) for each in (False, True)]
        await self.check_hidden(world, BOB, method, own)
        error = await world.told(BOB, method, case.request(shared))
        [info] = details(status_of(error), error_details_pb2.ErrorInfo)
        assert (error.code(), info.reason) == (Code.PERMISSION_DENIED, "NOT_OWNER")
        assert f"{shared} belongs to ada, who shares it" in str(error.details())
        for each in (own, shared):
            await self.check_role(world, method, each)
        await world.call(ADA, method, case.request(own))
        await world.call(ROOT, method, case.request(shared))

    @of(Kind.LISTS)
    async def test_list(self, world: World, method: str):
        case = CASES[method]
        own, shared = [await getattr(world, case.make)(each) for each in (False, True)]
        for caller in USERS:
            reply = await world.call(caller, method, case.request(""))
            assert shared.encode() in reply
            assert (own.encode() in reply) == (caller in (ADA, ROOT))

    async def check_hidden(self, world: World, caller: Caller, method: str, id: str) -> None:
        """What is told of a thing that is hidden is what is told of one that is not there, bit for bit."""
        case, missing = CASES[method], f"xyz{id[3:]}"
        hidden = await world.told(caller, method, case.request(id))
        absent = await world.told(caller, method, case.request(missing))
        assert hidden.code() is absent.code() is case.hidden
        assert str(hidden.details()).replace(id, missing) == absent.details()
        told = status_of(hidden).SerializeToString().replace(id.encode(), missing.encode())
        assert told == status_of(absent).SerializeToString()

    async def check_role(self, world: World, method: str, id: str) -> None:
        error = await world.told(EVE, method, CASES[method].request(id))
        [info] = details(status_of(error), error_details_pb2.ErrorInfo)
        assert (error.code(), info.reason) == (Code.PERMISSION_DENIED, "ROLE_REQUIRED")


async def test_an_id_that_another_has_is_taken_and_nothing_else_is_told(world: World):
    done, model = await world.done(True), await world.model(False)
    job, dataset = await world.waiting(False), await world.dataset(False)
    data = file_of(world.folder / "file")
    upload = dataset_service_pb2.UploadHeader(
        dataset_id=dataset, size_bytes=len(data), sha256=header(data).sha256
    )
    for method, request in [
        (
            "CreateTrainingJob",
            training.CreateTrainingJobRequest(
                training_job_id=job, training_job=training_job_pb2.TrainingJob(spec=_spec("digits"))
            ),
        ),
        ("UploadDataset", datasets.UploadDatasetRequest(header=upload)),
        (
            "RegisterModel",
            models.RegisterModelRequest(model_id=model, training_job=f"trainingJobs/{done}"),
        ),
    ]:
        error = await world.told(BOB, method, request)
        assert error.code() is Code.ALREADY_EXISTS
        assert "ada" not in str(error.details()).replace(job, "").replace(dataset, "").replace(
            model, ""
        )


async def test_another_has_to_send_what_is_there_already(world: World):
    await world.dataset(True)
    sha256 = header(file_of(world.folder / "file")).sha256
    asked = datasets.QueryUploadRequest(sha256=sha256)
    received = {
        caller.user: datasets.QueryUploadResponse.FromString(
            await world.call(caller, "QueryUpload", asked)
        ).received_bytes
        for caller in (ADA, BOB, ROOT)
    }
    assert received["ada"] > 0
    assert received["bob"] == received["root"] == 0


async def test_what_is_imported_is_the_callers(world: World):
    error = await world.told(
        BOB, "ImportDataset", datasets.ImportDatasetRequest(dataset_id="mine", path="/etc/passwd")
    )
    assert error.code() is Code.PERMISSION_DENIED


async def test_a_slot_does_not_name_another_users_job(world: World):
    world.bench.executor.free["cpu"] = 1
    own = await world.waiting(False)
    await world.bench.launched()
    for caller, name in ((ADA, own), (ROOT, own), (BOB, "-"), (EVE, "-")):
        reply = training.ListWorkersResponse.FromString(
            await world.call(caller, "ListWorkers", training.ListWorkersRequest())
        )
        [slot] = reply.workers[0].slots
        assert isinstance(slot, worker_pb2.Slot)
        assert slot.training_job == f"trainingJobs/{name}"


async def test_who_watches_is_cut_when_the_job_is_no_longer_shared(world: World):
    job = await world.waiting(True)
    watch: Any = world.service.channel.unary_stream(OURS["WatchTrainingJob"])
    request = training.WatchTrainingJobRequest(name=f"trainingJobs/{job}").SerializeToString()
    streams = {
        caller: watch(
            request,
            metadata=[("authorization", f"Bearer {world.bearers[caller.user]}")],
            timeout=30,
        )
        for caller in (BOB, ADA)
    }
    for stream in streams.values():
        await stream.read()
    await world.call(ADA, "UpdateTrainingJob", CASES["UpdateTrainingJob"].request(job))
    error = await failure(streams[BOB].read())
    assert error.code() is Code.NOT_FOUND
    assert await streams[ADA].read() != b""
    streams[ADA].cancel()


@pytest.mark.parametrize(
    ("job", "mask", "field"),
    [
        ({"shared": True, "priority": 3}, [], "training_job"),
        ({"shared": True}, ["priority"], "update_mask"),
        ({"priority": 3}, ["shared", "state"], "update_mask"),
        ({}, [], "update_mask"),
    ],
)
async def test_nothing_but_sharing_can_be_changed(
    world: World, job: dict[str, Any], mask: list[str], field: str
):
    request = training.UpdateTrainingJobRequest(
        training_job=training_job_pb2.TrainingJob(
            name=f"trainingJobs/{await world.waiting(False)}", **job
        ),
        update_mask=FieldMask(paths=mask),
    )
    error = await world.told(ADA, "UpdateTrainingJob", request)
    [bad] = details(status_of(error), error_details_pb2.BadRequest)
    assert [each.field for each in bad.field_violations] == [field]


@pytest.mark.parametrize("mask", [["shared"], ["*"], []])
async def test_a_mask_is_read_as_aip_134_has_it(world: World, mask: list[str]):
    name = f"trainingJobs/{await world.waiting(False)}"
    request = training.UpdateTrainingJobRequest(
        # What the service alone sets is ignored.
        training_job=training_job_pb2.TrainingJob(name=name, shared=True, owner="bob", attempt=3),
        update_mask=FieldMask(paths=mask),
    )
    job = training_job_pb2.TrainingJob.FromString(
        await world.call(ADA, "UpdateTrainingJob", request)
    )
    assert (job.owner, job.shared, job.attempt) == ("ada", True, 0)
    shown = await world.call(BOB, "GetTrainingJob", training.GetTrainingJobRequest(name=name))
    assert training_job_pb2.TrainingJob.FromString(shown) == job
