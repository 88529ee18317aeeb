"""Whatever is sent, it is answered; and the service goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import inf, nan
from typing import Any, NamedTuple

import grpc
import pytest
from google.protobuf import json_format
from hypothesis import HealthCheck, given, settings
from tests.e2e.fuzz.calls import blamed
from tests.e2e.servers import Server, spec
from tests.strategies import specs

from dropnorm import wire
from dropnorm.v1 import architecture_pb2, layers_pb2, training_job_pb2, training_spec_pb2
from dropnorm.v1 import training_service_pb2 as pb

OK, INVALID = grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT


class Answer(NamedTuple):
    """How a call ended, and which fields it blamed."""

    code: grpc.StatusCode
    fields: tuple[str, ...] = ()


Send = Callable[[str, bytes], Answer]

fuzz = settings(
    max_examples=150,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def send(tracked: Server) -> Iterator[Send]:
    """Sends bytes to a method as they are; the service must be well before and after."""
    assert tracked.health() == "SERVING"
    with grpc.insecure_channel(tracked.address) as channel:

        def call(method: str, request: bytes) -> Answer:
            unary: Any = channel.unary_unary(f"/dropnorm.v1.TrainingService/{method}")
            try:
                unary(request, timeout=60)
            except grpc.RpcError as error:
                return Answer(error.code(), blamed(error))
            return Answer(OK)

        yield call
    assert tracked.health() == "SERVING"


def create(training_spec: training_spec_pb2.TrainingSpec) -> bytes:
    request = pb.CreateTrainingJobRequest(validate_only=True)
    request.training_job.spec.CopyFrom(training_spec)
    return request.SerializeToString()


def good() -> training_spec_pb2.TrainingSpec:
    return wire.to_message(spec(), training_spec_pb2.TrainingSpec)


@fuzz
@given(asked=specs())
def test_any_valid_spec_is_understood(send: Send, asked):
    answer = send(
        "CreateTrainingJob", create(wire.to_message(asked, training_spec_pb2.TrainingSpec))
    )

    # It may ask for data that is not there, or for shapes that do not fit; then it says which field.
    assert answer.code in (OK, INVALID)
    assert all(field.startswith("training_job.spec.") for field in answer.fields)


@pytest.mark.parametrize("value", [2**63 - 1, -(2**63), 0, -1])
@pytest.mark.parametrize("field", ["epochs", "batch_size"])
def test_numbers_beyond_all_measure(send: Send, field: str, value: int):
    wrong = good()
    setattr(wrong.optimization, field, value)

    assert send("CreateTrainingJob", create(wrong)) == Answer(
        INVALID, (f"training_job.spec.optimization.{field}",)
    )


@pytest.mark.parametrize("value", [nan, inf, -inf, 1e308])
def test_numbers_that_are_none(send: Send, value: float):
    wrong = good()
    wrong.regularization.dropout.rate = value
    wrong.optimization.optimizer.adam.lr = value

    assert send("CreateTrainingJob", create(wrong)) == Answer(
        INVALID,
        (
            "training_job.spec.regularization.dropout.rate",
            "training_job.spec.optimization.optimizer.adam.lr",
        ),
    )


MILLION = 2**20
BLOCK: dict[str, Any] = {"residual": {"layers": [{"flatten": {}}] * 500}}


@pytest.mark.parametrize(
    ("part", "field"),
    [
        ({"architecture": {"mlp": {"hidden": [2**40]}}}, "architecture.mlp.hidden[0]"),
        ({"architecture": {"mlp": {"hidden": [MILLION] * 512}}}, "architecture.mlp.hidden[1]"),
        ({"architecture": {"mlp": {"hidden": [MILLION // 2] * 2}}}, "architecture"),
        ({"architecture": {"mlp": {"hidden": [8] * 100_000}}}, "architecture.mlp.hidden"),
        ({"architecture": {"vgg": {"width": 2**40}}}, "architecture.vgg.width"),
        ({"architecture": {"resnet": {"depth": 152, "width": 2**16}}}, "architecture.resnet"),
        (
            {"architecture": {"sequential": {"layers": [{"flatten": {}}] * 5000}}},
            "architecture.sequential.layers",
        ),
        # Items that are wrong cost far more than good ones, unless they are counted before they are read.
        ({"architecture": {"mlp": {"hidden": [0] * 1_000_000}}}, "architecture.mlp.hidden"),
        (
            {"architecture": {"sequential": {"layers": [{}] * 200_000}}},
            "architecture.sequential.layers",
        ),
        (
            {"architecture": {"sequential": {"layers": [BLOCK] * 500}}},
            "architecture.sequential.layers[9].residual.layers[490]",
        ),
        ({"optimization": {"epochs": 10**9}}, "optimization.epochs"),
        ({"optimization": {"batch_size": 10**12}}, "optimization.batch_size"),
        ({"compute": {"gpus": 10**9}}, "compute.gpus"),
        (
            {"regularization": {"batch_norm": {"ghost_batch_size": 2**40}}},
            "regularization.batch_norm.ghost_batch_size",
        ),
    ],
)
def test_absurd_sizes_are_refused_by_their_field_before_memory_is_taken(
    send: Send, tracked: Server, part: dict[str, Any], field: str
):
    absurd: Any = good()
    # What is given takes the place of what is there, as lists would otherwise be joined.
    for name in part:
        absurd.ClearField(name)
    json_format.ParseDict(part, absurd)
    before = tracked.memory()

    assert send("CreateTrainingJob", create(absurd)) == Answer(
        INVALID, (f"training_job.spec.{field}",)
    )
    assert tracked.memory() < before + 512 * 2**20


def test_a_field_that_nobody_knows(send: Send):
    number_2047 = b"\xfa\x7f\x01x"
    answer = send("CreateTrainingJob", create(good()) + number_2047)
    assert answer.code is INVALID

    inside = training_spec_pb2.TrainingSpec.FromString(good().SerializeToString() + number_2047)
    assert send("CreateTrainingJob", create(inside)).code is INVALID


@pytest.mark.parametrize("depth", [9, 20, 90, 1000])
def test_blocks_within_blocks(send: Send, depth: int):
    content = layers_pb2.Layer(flatten=layers_pb2.FlattenLayer()).SerializeToString()
    residual = layers_pb2.Layer.DESCRIPTOR.fields_by_name["residual"].number
    inner = layers_pb2.ResidualLayer.DESCRIPTOR.fields_by_name["layers"].number
    for _ in range(depth):
        content = nested(residual, nested(inner, content))
    # Too deep to be made as a message, so it is made as bytes.
    for message, field in (
        (architecture_pb2.Sequential, "layers"),
        (architecture_pb2.Architecture, "sequential"),
        (training_spec_pb2.TrainingSpec, "architecture"),
        (training_job_pb2.TrainingJob, "spec"),
        (pb.CreateTrainingJobRequest, "training_job"),
    ):
        content = nested(message.DESCRIPTOR.fields_by_name[field].number, content)

    assert send("CreateTrainingJob", content).code is INVALID


def nested(field: int, content: bytes) -> bytes:
    """A field of message type, on the wire."""
    return varint(field << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def test_a_message_beyond_the_size_limit(send: Send, tracked: Server):
    request = pb.ListTrainingJobsRequest(filter="a" * 70_000_000)
    with grpc.insecure_channel(tracked.address) as channel:
        call: Any = channel.unary_unary("/dropnorm.v1.TrainingService/ListTrainingJobs")
        with pytest.raises(grpc.RpcError) as error:
            call(request.SerializeToString(), timeout=60)

    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert send("ListTrainingJobs", b"").code is OK


@pytest.mark.parametrize(
    "name",
    ["", "trainingJobs/", "trainingJobs/../../etc", "jobs/x", "trainingJobs/X", "trainingJobs/a\n"],
)
def test_names_of_no_job(send: Send, name: str):
    request = pb.GetTrainingJobRequest(name=name).SerializeToString()

    assert send("GetTrainingJob", request) == Answer(INVALID, ("name",))
