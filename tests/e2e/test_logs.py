"""The log of a real service: every line is a record, and says which job it is about, whoever wrote it."""

import json
import os
import signal
from collections.abc import Callable

from tests.e2e.servers import Server, after_epoch, eventually, spec

from dropnorm.results import State


def test_each_line_is_a_record_and_those_of_workers_name_job_and_attempt(
    make_server: Callable[..., Server],
) -> None:
    server = make_server("--log-level", "debug").start()
    with server.client() as client:
        client.train(spec(), job_id="first").result()
        for file in (server.data_dir / "datasets").rglob("*.safetensors"):
            file.write_bytes(b"damaged")
        client.train(spec(), job_id="second").result()

        job = client.train(spec(epochs=100_000, batch_size=32), job_id="third")
        after_epoch(job)
        for worker in server.workers():
            os.kill(worker, signal.SIGKILL)
        eventually(lambda: job.refresh().snapshot.attempt == 2, "the second attempt")
        job.cancel()
        eventually(lambda: job.refresh().state is State.CANCELLED, "the end")
    server.stop()

    records = [json.loads(line) for line in server.log.splitlines()]
    assert all({"time", "level", "logger", "message"} <= record.keys() for record in records)
    of_training = [
        each for each in records if each["logger"].startswith("dropnorm_service.training")
    ]
    damaged = [each for each in of_training if "is made anew" in each["message"]]
    assert {(each["job"], each["attempt"]) for each in damaged} == {("second", 1)}
    calls = [each for each in records if each["message"] == "call"]
    assert all(call["request_id"] and call["user"] == "local" for call in calls)
    [said] = [each for each in records if each["message"] == "an attempt was lost"]
    assert (said["job"], said["attempt"], said["reason"]) == ("third", 1, "WORKER_LOST")
