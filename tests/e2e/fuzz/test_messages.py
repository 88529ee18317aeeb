"""Messages that no client of good will would send, to every method there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.e2e.fuzz.calls import EXAMPLES, OWN_FAULTS, Method, Wire, contract, parts
from tests.e2e.fuzz.mutation import mutated
from tests.e2e.fuzz.seeds import seeds
from tests.e2e.servers import Server
from tests.strategies import messages, specs

from dropnorm import wire as mapping
from dropnorm.v1 import training_spec_pb2
from dropnorm.v1.training_service_pb2 import CreateTrainingJobRequest

Seeds = Mapping[str, Sequence[Message]]

# The first test waits until MLflow has loaded and has the model of a job.
pytestmark = pytest.mark.timeout(600)

METHODS = contract()

fuzz = settings(
    max_examples=EXAMPLES or 40,
    derandomize=not EXAMPLES,
    database=None,
    suppress_health_check=list(HealthCheck),
)
each_method = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)


@pytest.fixture(scope="module")
def valid(target: Server, tmp_path_factory: pytest.TempPathFactory) -> Seeds:
    """A valid call of every method, as messages."""
    return seeds(target, tmp_path_factory.mktemp("seeds"))


def test_every_method_has_a_valid_call_to_start_from(wire: Wire, valid: Seeds):
    codes = {
        method.name: wire.send(method, [each.SerializeToString() for each in valid[method.name]])
        for method in METHODS
    }

    assert set(codes) == set(valid)
    refused = {name: code for name, code in codes.items() if code is not grpc.StatusCode.OK}
    assert refused == {
        "CancelTrainingJob": grpc.StatusCode.FAILED_PRECONDITION,  # it has succeeded
        "PauseTrainingJob": grpc.StatusCode.FAILED_PRECONDITION,
        "ResumeTrainingJob": grpc.StatusCode.FAILED_PRECONDITION,
        "DeleteTrainingJob": grpc.StatusCode.NOT_FOUND,
        "DeleteDataset": grpc.StatusCode.NOT_FOUND,
        "ImportDataset": grpc.StatusCode.PERMISSION_DENIED,  # it lies in no folder to import from
    }


@each_method
def test_random_bytes(wire: Wire, method: Method):
    @fuzz
    @given(content=st.lists(st.binary(max_size=300), max_size=4))
    def send(content: Sequence[bytes]) -> None:
        assert wire.send(method, parts(method, content)) not in OWN_FAULTS

    send()


@each_method
def test_any_values_in_any_field(wire: Wire, method: Method):
    @fuzz
    @given(requests=st.lists(messages(method.request), min_size=1, max_size=3))
    def send(requests: Sequence[Message]) -> None:
        content = [_harmless(each).SerializeToString() for each in requests]
        assert wire.send(method, parts(method, content)) not in OWN_FAULTS

    send()


@each_method
def test_valid_calls_with_damage(wire: Wire, valid: Seeds, method: Method):
    originals = [each.SerializeToString() for each in valid[method.name]]

    @fuzz
    @given(data=st.data())
    def send(data: st.DataObject) -> None:
        damaged = list(originals)
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place] = data.draw(mutated(damaged[place]))
        assert wire.send(method, damaged) not in OWN_FAULTS

    send()


@fuzz
@given(asked=specs(), data=st.data())
def test_valid_specs_with_damage(wire: Wire, asked: Any, data: st.DataObject):
    request = CreateTrainingJobRequest()
    request.training_job.spec.CopyFrom(mapping.to_message(asked, training_spec_pb2.TrainingSpec))
    damaged = data.draw(mutated(request.SerializeToString()))

    # The last word on a field is the one that counts: nothing is created.
    last = CreateTrainingJobRequest(validate_only=True).SerializeToString()
    [create] = [method for method in METHODS if method.name == "CreateTrainingJob"]
    assert wire.send(create, [damaged + last]) not in OWN_FAULTS


@fuzz
@given(
    metadata=st.lists(
        st.tuples(
            st.sampled_from(
                ("x-request-id", "authorization", "traceparent", "grpc-timeout-x", "a-b")
            ),
            st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200),
        ),
        max_size=8,
    ),
    binary=st.lists(st.tuples(st.just("x-bin"), st.binary(max_size=200)), max_size=3),
)
def test_metadata_of_all_kinds(
    wire: Wire, metadata: Sequence[tuple[str, str]], binary: Sequence[tuple[str, bytes]]
):
    [workers] = [method for method in METHODS if method.name == "ListWorkers"]

    assert wire.send(workers, [b""], metadata=[*metadata, *binary]) is grpc.StatusCode.OK


def _harmless(request: Message) -> Message:
    """Nobody waits for what would be trained."""
    if isinstance(request, CreateTrainingJobRequest):
        request.validate_only = True
    return request
