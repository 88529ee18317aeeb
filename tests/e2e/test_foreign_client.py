"""A client that knows nothing of dropnorm: JSON through `buf curl`, which learns the contract by reflection."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from tests.e2e.servers import Server

BUF = Path(sys.executable).parent / "buf"

SPEC: dict[str, Any] = {
    "architecture": {"mlp": {"hidden": [16]}},
    "data": {"dataset": "iris"},
    "optimization": {"epochs": 2, "optimizer": {"sgd": {"lr": 0.05}}},
}


def call(server: Server, method: str, request: object) -> subprocess.CompletedProcess[str]:
    target = f"http://{server.address}/dropnorm.v1.TrainingService/{method}"
    options = ["--protocol", "grpc", "--http2-prior-knowledge", "--reflect"]
    return subprocess.run(
        [BUF, "curl", *options, "--data", json.dumps(request), target],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


def answers(server: Server, method: str, request: object) -> list[dict[str, Any]]:
    """Every message of the answer, as JSON."""
    done = call(server, method, request)
    assert done.returncode == 0, done.stderr
    rest, messages = done.stdout.strip(), []
    while rest:
        message, end = json.JSONDecoder().raw_decode(rest)
        messages.append(message)
        rest = rest[end:].lstrip()
    return messages


def test_json_in_and_json_out(tracked: Server):
    request = {"trainingJob": {"spec": SPEC}, "trainingJobId": "foreign"}
    [created] = answers(tracked, "CreateTrainingJob", request)
    assert created["name"] == "trainingJobs/foreign"
    assert created["spec"]["optimization"]["optimizer"]["sgd"]["lr"] == 0.05
    assert created["spec"]["optimization"]["batchSize"] == "128", "defaults are filled in"

    events = answers(tracked, "WatchTrainingJob", {"name": created["name"]})
    assert [int(event["sequence"]) for event in events] == list(range(1, len(events) + 1))
    states = [each["payload"]["state"]["state"] for each in events if "state" in each["payload"]]
    assert states == ["STATE_QUEUED", "STATE_RUNNING", "STATE_SUCCEEDED"]

    [job] = answers(tracked, "GetTrainingJob", {"name": created["name"]})
    assert job["state"] == "STATE_SUCCEEDED"
    assert len(job["evaluation"]["history"]) == 2
    assert 0 <= job["evaluation"]["test"]["accuracy"] <= 1


def test_what_is_wrong_is_named(tracked: Server):
    wrong = SPEC | {
        "architecture": {"mlp": {"hidden": [16, -1]}},
        "optimization": {"epochs": 0},
    }
    done = call(tracked, "CreateTrainingJob", {"trainingJob": {"spec": wrong}})

    assert done.returncode != 0
    error = json.loads(done.stderr)
    assert error["code"] == "invalid_argument"
    # buf shows details as bytes: the standard error types are not part of the contract.
    packed = {detail["type"]: detail["value"] for detail in error["details"]}
    info = error_details_pb2.ErrorInfo.FromString(decoded(packed["google.rpc.ErrorInfo"]))
    assert (info.reason, info.domain) == ("INVALID_REQUEST", "dropnorm.dev")
    bad = error_details_pb2.BadRequest.FromString(decoded(packed["google.rpc.BadRequest"]))
    assert {violation.field for violation in bad.field_violations} == {
        "training_job.spec.architecture.mlp.hidden[1]",
        "training_job.spec.optimization.epochs",
    }


def decoded(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4))


def test_what_is_not_there(tracked: Server):
    done = call(tracked, "GetTrainingJob", {"name": "trainingJobs/nobody"})

    assert json.loads(done.stderr)["code"] == "not_found"


def test_every_service_that_reflection_lists_has_its_health(tracked: Server):
    with grpc.insecure_channel(tracked.address) as channel:
        listed = ProtoReflectionDescriptorDatabase(channel).get_services()

    assert {*listed} > {"dropnorm.v1.TrainingService", "grpc.health.v1.Health"}
    for service in listed:
        assert tracked.health(service) == "SERVING", service
