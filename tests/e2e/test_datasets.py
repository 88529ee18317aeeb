"""One's own data, from an array or a file to a training on it."""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tests.e2e.servers import PATIENCE, Server, eventually, long, spec

import dropnorm as dn
from dropnorm.datasets import _requests, write_bundle
from dropnorm.datasets.arrays import from_arrays
from dropnorm.errors import from_rpc_error
from dropnorm.v1 import dataset_service_pb2 as pb
from dropnorm.v1.dataset_service_pb2_grpc import DatasetServiceStub

RANDOM = np.random.default_rng(5)
LABELS = np.array(["low", "high"])[np.arange(400) % 2]
SAMPLES = RANDOM.normal(size=(400, 6)) + 2.0 * (LABELS == "high")[:, None]


def test_a_job_trains_on_what_was_uploaded(client: dn.Client) -> None:
    dataset = client.datasets.upload("made-here", SAMPLES, LABELS)
    evaluation = client.train(spec(dataset.name, epochs=10)).result()

    assert evaluation.dataset.digest == dataset.digest
    assert [each.name for each in evaluation.test.classes] == ["high", "low"]
    assert evaluation.test.accuracy is not None
    assert evaluation.test.accuracy > 0.9
    assert client.datasets.get("datasets/made-here") == dataset
    assert dataset in list(client.datasets.list())
    assert list(client.datasets.list(filter="name = datasets/made-here")) == [dataset]


def test_a_data_set_of_very_many_classes(client: dn.Client) -> None:
    classes = 2_000
    labels = np.arange(2 * classes) % classes
    samples = RANDOM.normal(size=(len(labels), 1))
    client.datasets.upload("species", samples, labels, task="classification")
    small = dn.TrainingSpec(
        architecture=dn.MLP(hidden=(1,)),
        data=dn.Data(dataset="species"),
        optimization=dn.Optimization(epochs=1, batch_size=4096),
        evaluation=dn.EvaluationSettings(train_metrics=False),
    )
    evaluation = client.train(small).result()
    assert evaluation.dataset.outputs == classes
    assert evaluation.test.macro_f1 is not None
    assert not evaluation.test.classes
    assert not evaluation.test.confusion_matrix


def test_a_bert_classifies_texts(client: dn.Client) -> None:
    words = [" ".join(RANDOM.choice(["la", "li", "lo"], 6)) for _ in range(200)]
    labels = np.array(["plain", "odd"])[np.arange(200) % 2]
    texts = [
        text + (" zing" if label == "odd" else " zong")
        for text, label in zip(words, labels, strict=True)
    ]
    client.datasets.upload("sounds", texts, labels, tokens="words", length=16)
    asked = dn.TrainingSpec(
        architecture=dn.BERT(width=16, heads=2, layers=1, feed_forward=32),
        optimization=dn.Optimization(optimizer=dn.Adam(lr=5e-3), epochs=6, batch_size=16),
        data=dn.Data(dataset="sounds"),
    )
    evaluation = client.train(asked).result()
    assert [each.name for each in evaluation.test.classes] == ["odd", "plain"]
    assert evaluation.test.accuracy is not None
    assert evaluation.test.accuracy > 0.9


def test_a_data_set_in_use_cannot_be_deleted(client: dn.Client) -> None:
    client.datasets.upload("in-use", SAMPLES, LABELS)
    endless = long().model_copy(update={"data": dn.Data(dataset="in-use")})
    job = client.train(endless)
    with pytest.raises(dn.WrongState, match=job.name):
        client.datasets.delete("in-use")
    job.cancel()
    with pytest.raises(dn.JobCancelled):
        job.result()
    client.datasets.delete("in-use")
    with pytest.raises(dn.InvalidRequest, match="no data set 'in-use'"):
        client.plan(endless)


def test_a_job_is_created_on_a_data_set_or_the_data_set_is_deleted(client: dn.Client) -> None:
    endless = long().model_copy(update={"data": dn.Data(dataset="contested")})
    for milliseconds in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12):
        client.datasets.upload("contested", SAMPLES, LABELS)
        outcomes: dict[str, bool] = {}

        def delete(after: float, outcomes: dict[str, bool] = outcomes) -> None:
            time.sleep(after)
            try:
                client.datasets.delete("contested")
            except dn.WrongState:
                outcomes["deleted"] = False
            else:
                outcomes["deleted"] = True

        deleting = threading.Thread(target=delete, args=(milliseconds / 1000,))
        deleting.start()
        try:
            job = client.train(endless)
        except dn.InvalidRequest:
            job = None
        deleting.join()
        assert outcomes["deleted"] == (job is None)
        if job is not None:
            job.pause()
            with pytest.raises(dn.WrongState, match=job.name):
                client.datasets.delete("contested")
            job.cancel()
            with pytest.raises(dn.JobCancelled):
                job.result()
            client.datasets.delete("contested")


def test_a_model_is_not_proved_on_another_data_set_of_the_same_name(
    client: dn.Client, tmp_path: Path
) -> None:
    client.datasets.upload("replaced", SAMPLES, LABELS)
    job = client.train(spec("replaced"))
    job.result()
    client.datasets.delete("replaced")
    with pytest.raises(dn.WrongState, match="not there any more"):
        job.export(tmp_path / "model.safetensors")
    client.datasets.upload("replaced", SAMPLES + 1, LABELS)
    with pytest.raises(dn.WrongState, match="that it was trained on is no longer there"):
        job.export(tmp_path / "model.safetensors")
    client.datasets.delete("replaced")
    client.datasets.upload("replaced", SAMPLES, LABELS)
    job.export(tmp_path / "model.safetensors")


def test_another_data_set_of_the_same_name_is_planned_anew(client: dn.Client) -> None:
    client.datasets.upload("renewed", SAMPLES, LABELS)
    assert client.plan(spec("renewed")).dataset.input_shape == (6,)
    client.datasets.delete("renewed")
    client.datasets.upload("renewed", SAMPLES[:, :4], LABELS)
    assert client.plan(spec("renewed")).dataset.input_shape == (4,)


async def test_the_same_in_asyncio(tracked: Server) -> None:
    async with dn.AsyncClient(tracked.address) as client:
        dataset = await client.datasets.upload("asynchronous", SAMPLES, LABELS)
        assert await client.datasets.upload("asynchronous", SAMPLES, LABELS) == dataset
        assert dataset in [each async for each in client.datasets.list()]
        await client.datasets.delete(dataset.name)
        with pytest.raises(dn.NotFound):
            await client.datasets.get("asynchronous")


def test_an_upload_goes_on_after_the_server_was_killed(
    make_server: Callable[..., Server], tmp_path: Path
) -> None:
    path = tmp_path / "large"
    images = RANDOM.integers(0, 255, (3000, 1, 64, 64), dtype=np.uint8)
    sha256 = write_bundle(from_arrays(images, np.arange(3000) % 7), path)
    server = make_server().start()
    killed = threading.Event()  # gRPC asks for the parts in a thread of its own

    def parts_until_the_end() -> Iterator[pb.UploadDatasetRequest]:
        for number, part in enumerate(_requests.parts("large", path, sha256, 0, False)):
            if number == 5:
                with server.client() as other:
                    eventually(lambda: other._call(_requests.query(sha256), None) > 0, "bytes")
                server.kill()
                killed.set()
            yield part

    with server.client() as client, pytest.raises(Exception, match="UNAVAILABLE"):
        client._method("UploadDataset")(parts_until_the_end())

    assert killed.wait(PATIENCE)
    server.start()
    with server.client() as client:
        there = client._call(_requests.query(sha256), None)
        assert 0 < there < path.stat().st_size
        dataset = client.datasets.upload_file("large", path, sha256)
    assert dataset.samples == 3000
    assert dataset.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


class Line:
    """A connection to a server that breaks whenever so many bytes have gone to it, the first few times."""

    def __init__(self, port: int, *, bytes_each: int, breaks: int) -> None:
        self.sent, self.breaks = 0, breaks
        self._port, self._bytes = port, bytes_each
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near = self._listener.accept()[0]
                far = socket.create_connection(("127.0.0.1", self._port))
                threading.Thread(target=self._carry, args=(near, far), daemon=True).start()
                threading.Thread(target=self._bring, args=(far, near), daemon=True).start()

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        carried = 0
        with near, far, suppress(OSError):
            while data := near.recv(65536):
                far.sendall(data)
                carried += len(data)
                self.sent += len(data)
                if self.breaks and carried > self._bytes:
                    self.breaks -= 1
                    for end in (near, far):
                        end.shutdown(socket.SHUT_RDWR)

    def _bring(self, far: socket.socket, near: socket.socket) -> None:
        with suppress(OSError):
            while data := far.recv(65536):
                near.sendall(data)

    def close(self) -> None:
        self._listener.close()


async def test_an_upload_goes_on_over_a_line_that_breaks(tracked: Server) -> None:
    def images(seed: int) -> Any:
        return np.random.default_rng(seed).integers(0, 255, (2000, 1, 50, 50), dtype=np.uint8)

    labels = np.arange(2000) % 7
    for kind in ("sync", "async"):
        line = Line(tracked.port, bytes_each=2_200_000, breaks=2)
        if kind == "sync":
            with dn.Client(line.address) as client:
                dataset = client.datasets.upload("broken-sync", images(1), labels)
        else:
            async with dn.AsyncClient(line.address) as other:
                dataset = await other.datasets.upload("broken-async", images(2), labels)
        line.close()
        assert dataset.samples == 2000
        assert line.breaks == 0
        # At every break a part of 1 MiB and what was under way may be lost, but not what has come before.
        assert line.sent < dataset.size_bytes + 2 * 3 * 2**20


def test_an_upload_that_stalls_leaves_its_place_to_others(
    make_server: Callable[..., Server],
) -> None:
    server = make_server("--max-uploads-per-user", "1", "--upload-idle-timeout", "6").start()
    stalled = threading.Event()
    header = pb.UploadHeader(dataset_id="stalled", size_bytes=2**20, sha256="0" * 64)

    def begin_and_stall() -> Iterator[pb.UploadDatasetRequest]:
        yield pb.UploadDatasetRequest(header=header)
        yield pb.UploadDatasetRequest(chunk=bytes(1000))
        stalled.wait(PATIENCE)

    with server.client() as other, grpc.insecure_channel(server.address) as channel:
        stub: Any = DatasetServiceStub(channel)
        call = stub.UploadDataset.future(begin_and_stall())

        def received() -> int:
            query = pb.QueryUploadRequest(sha256=header.sha256)
            return int(stub.QueryUpload(query).received_bytes)

        eventually(lambda: received() == 1000, "the upload has begun")
        # It is told to come again, and does until there is a place.
        assert other.datasets.upload("whole", SAMPLES, LABELS).samples == 400
        error = from_rpc_error(call.exception(PATIENCE), address=server.address)
        stalled.set()
        assert isinstance(error, dn.Unavailable)
        assert "Nothing has come for 6 seconds" in str(error)
        assert received() == 1000, "what has come is kept"


def test_limits_are_told_by_the_service(make_server: Callable[..., Server]) -> None:
    server = make_server(
        "--max-dataset-bytes", "20000", "--max-datasets", "2", "--max-datasets-per-user", "1"
    ).start()
    with server.client() as client:
        with pytest.raises(dn.ResourceExhausted, match="max_dataset_bytes"):
            client.datasets.upload("too-large", np.tile(SAMPLES, 4), LABELS)
        client.datasets.upload("the-first", SAMPLES, LABELS)
        with pytest.raises(dn.ResourceExhausted, match="more than 1 data sets") as raised:
            client.datasets.upload("one-too-many", SAMPLES + 1, LABELS)
        assert raised.value.metadata["setting"] == "max_datasets_per_user"
        assert raised.value.retry_after is None
        client.datasets.delete("the-first")
    header = pb.UploadHeader(dataset_id="mine", size_bytes=1000, sha256="0" * 64)
    parts = [
        pb.UploadDatasetRequest(header=header),
        pb.UploadDatasetRequest(chunk=bytes(2**21 + 1)),
    ]
    with server.client() as client, pytest.raises(Exception, match="a chunk has at most 2,097,152"):
        client._method("UploadDataset")(iter(parts))


def test_the_command_line(tracked: Server, tmp_path: Path) -> None:
    table = tmp_path / "flats.csv"
    rows = "\n".join(f"{n % 9},{'north' if n % 2 else 'south'},{n % 9 * 10}" for n in range(60))
    table.write_text(f"rooms,side,price\n{rows}\n")

    def run(*arguments: str, status: int = 0) -> Any:
        command = [sys.executable, "-m", "dropnorm.cli", "datasets", *arguments]
        done = subprocess.run(
            [*command, "--address", tracked.address], check=False, capture_output=True, text=True
        )
        assert done.returncode == status, done.stderr
        return done

    shown = json.loads(run("upload", "flats", str(table), "--task", "regression", "--json").stdout)
    assert shown["feature_names"] == ["rooms", "side=north", "side=south"]
    assert shown["task"] == "regression"
    assert "flats" in run("list").stdout
    assert json.loads(run("get", "flats", "--json").stdout) == shown
    run("delete", "flats")
    run("get", "flats", status=3)
    table.write_text("a,b\n1,2,3\n")
    assert "no table" in run("upload", "broken", str(table), status=2).stderr
    assert "import_dirs" in run("import", "theirs", "/etc/passwd", status=8).stderr


def test_files_of_the_services_own_machine(
    make_server: Callable[..., Server], tmp_path: Path
) -> None:
    (tmp_path / "shared").mkdir()
    path = tmp_path / "shared" / "mine.safetensors"
    write_bundle(from_arrays(SAMPLES, LABELS), path)
    server = make_server("--import-dirs", str(tmp_path / "shared")).start()
    with server.client() as client:
        assert client.datasets.import_file("mine", str(path)).samples == 400
        with pytest.raises(dn.PermissionDenied, match="import_dirs"):
            client.datasets.import_file("theirs", "/etc/passwd")
