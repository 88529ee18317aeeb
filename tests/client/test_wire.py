"""Models survive the wire, and whatever else comes over it is named field by field."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from hypothesis import given
from pydantic import BaseModel
from tests import strategies

from dropnorm import spec as dn
from dropnorm import wire
from dropnorm._codecs import Copied, ModelCodec, OrDefault, Repeated, UnionCodec
from dropnorm.results import (
    CheckpointWritten,
    EpochCompleted,
    EpochMetrics,
    Event,
    JobError,
    Plan,
    Progress,
    State,
    TrainingJob,
    Worker,
)
from dropnorm.v1 import (
    optimization_pb2,
    plan_pb2,
    training_event_pb2,
    training_job_pb2,
    training_spec_pb2,
    worker_pb2,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
MINIMAL: dict[str, Any] = {"architecture": {"mlp": {}}, "data": {"dataset": "digits"}}


def through(message: Message) -> Any:
    """The message as its receiver parses it."""
    return type(message).FromString(message.SerializeToString())


def read(values: dict[str, Any]) -> dn.TrainingSpec:
    message = training_spec_pb2.TrainingSpec(**values)
    return wire.from_message(through(message), dn.TrainingSpec, path="training_job.spec")


def problems(values: dict[str, Any]) -> dict[str, str]:
    """What is wrong with MINIMAL, changed by these values: message by field, without the prefix."""
    with pytest.raises(dn.InvalidSpecError) as caught:
        read(MINIMAL | values)
    found = {
        field.removeprefix("training_job.spec."): text for field, text in caught.value.problems
    }
    assert len(found) == len(caught.value.problems)
    return found


def with_unknown_field(message: Message, number: int) -> None:
    """Add a varint field of that number, as a newer sender would."""
    tag, encoded = number << 3, b""
    while tag > 127:
        encoded, tag = encoded + bytes([tag & 127 | 128]), tag >> 7
    message.MergeFromString(encoded + bytes([tag, 1]))


def dumped(model: BaseModel) -> str:
    """For comparisons in which NaN equals NaN and a map has no order."""
    return json.dumps(json.loads(model.model_dump_json()), sort_keys=True)


def job(**values: Any) -> TrainingJob:
    required: dict[str, Any] = {
        "name": "trainingJobs/first",
        "display_name": "first",
        "experiment": "default",
        "spec": dn.TrainingSpec(architecture=dn.MLP(hidden=()), data=dn.Data(dataset="digits")),
        "spec_digest": "0" * 64,
        "state": State.RUNNING,
        "create_time": NOW,
        "update_time": NOW,
    }
    return TrainingJob(**required | values)


class TestRoundTrip:
    @given(spec=strategies.specs())
    def test_a_spec_with_every_default_written_out(self, spec):
        message = wire.to_message(spec, training_spec_pb2.TrainingSpec)

        back = wire.from_message(through(message), dn.TrainingSpec)

        assert back == spec
        assert back.digest() == spec.digest()

    @given(submission=strategies.submissions())
    def test_a_submission_of_which_only_what_was_set_travels(self, submission):
        message = wire.to_message(submission, training_job_pb2.TrainingJob, only_set=True)

        back = wire.from_message(through(message), dn.Submission, path="training_job")

        assert back == submission
        optimization = submission.spec.optimization
        if "optimization" in submission.spec.model_fields_set:
            assert back.spec.optimization.model_fields_set == {
                name
                for name in optimization.model_fields_set
                if getattr(optimization, name) is not None
            }
        else:
            assert not message.spec.HasField("optimization")

    @pytest.mark.parametrize(
        ("model", "message_type"),
        [
            (TrainingJob, training_job_pb2.TrainingJob),
            (Event, training_event_pb2.TrainingEvent),
            (Plan, plan_pb2.TrainingPlan),
            (Worker, worker_pb2.Worker),
        ],
        ids=lambda value: value.__name__,
    )
    def test_a_result(self, model, message_type):
        @given(result=strategies.results(model))
        def check(result: BaseModel) -> None:
            message = wire.to_message(result, message_type)

            back = wire.from_message(through(message), model)

            assert dumped(back) == dumped(result)

        check()

    def test_only_what_was_set_is_written(self):
        spec = dn.TrainingSpec(
            architecture=dn.Sequential(layers=(dn.layers.Flatten(), dn.layers.Linear(units=3))),
            data=dn.Data(dataset="digits"),
            regularization=dn.Regularization(dropout=dn.Dropout()),
            optimization=dn.Optimization(optimizer=dn.SGD(), warmup=None),
        )

        message = wire.to_message(spec, training_spec_pb2.TrainingSpec, only_set=True)

        assert json_format.MessageToDict(message, preserving_proto_field_name=True) == {
            "architecture": {
                "sequential": {"layers": [{"flatten": {}}, {"linear": {"units": "3"}}]}
            },
            "data": {"dataset": "digits"},
            "regularization": {"dropout": {}},
            "optimization": {"optimizer": {"sgd": {}}},
        }

    def test_keep_prob_travels_as_the_rate(self):
        dropout = dn.Regularization(dropout=dn.Dropout(keep_prob=0.8))
        spec = dn.TrainingSpec(
            architecture=dn.MLP(hidden=()), data=dn.Data(dataset="digits"), regularization=dropout
        )

        message = wire.to_message(spec, training_spec_pb2.TrainingSpec, only_set=True)

        assert message.regularization.dropout.rate == 0.2
        assert not message.regularization.dropout.HasField("keep_prob")

    def test_keep_prob_from_another_client_becomes_the_rate(self):
        spec = read(MINIMAL | {"regularization": {"dropout": {"keep_prob": 0.8}}})

        assert spec.regularization.dropout == dn.Dropout(rate=0.2)

    def test_an_mlp_without_hidden_layers_stays_one(self):
        assert read(MINIMAL).architecture == dn.MLP(hidden=())

    def test_a_time_keeps_its_microseconds(self):
        message = wire.to_message(job(start_time=None), training_job_pb2.TrainingJob)

        assert message.create_time.ToDatetime(tzinfo=UTC) == NOW
        assert not message.HasField("start_time")
        assert wire.from_message(message, TrainingJob).create_time == NOW

    def test_an_error_is_a_status_with_one_error_info(self):
        error = JobError(
            code=3, reason="DIVERGED", message="The loss is NaN.", metadata={"epoch": "3"}
        )

        message = wire.to_message(job(error=error), training_job_pb2.TrainingJob)

        (detail,) = message.error.details
        info = error_details_pb2.ErrorInfo()
        assert detail.Unpack(info)
        assert (message.error.code, message.error.message) == (3, "The loss is NaN.")
        assert (info.reason, info.domain, dict(info.metadata)) == (
            "DIVERGED",
            "dropnorm.dev",
            {"epoch": "3"},
        )
        assert wire.from_message(message, TrainingJob).error == error


class TestStrictReading:
    def test_an_unspecified_enum_value_is_the_default(self):
        assert read(MINIMAL | {"compute": {"device": 0}}).compute.device == "auto"

    def test_everything_wrong_is_named_at_once(self):
        found = problems(
            {
                "architecture": {
                    "sequential": {
                        "layers": [
                            {"linear": {"units": 4}},
                            {"conv": {"channels": 6, "groups": 4}},
                            {"residual": {"layers": [{"dropout": {"rate": 1.5}}, {}]}},
                        ]
                    }
                },
                "optimization": {
                    "batch_size": 0,
                    "optimizer": {"sgd": {"lr": -1.0}},
                    "schedule": {},
                },
                "compute": {"precision": 9},
                "data": {},
            }
        )

        assert found == {
            "architecture.sequential.layers[1].conv.groups": (
                "4 groups do not divide 6 channels; give a divisor of both the input's and the output's channels"
            ),
            "architecture.sequential.layers[2].residual.layers[0].dropout.rate": (
                "Input should be less than or equal to 1, not 1.5"
            ),
            "architecture.sequential.layers[2].residual.layers[1]": (
                "choose one of linear, conv, pool, flatten, activation, dropout, batch_norm, "
                "layer_norm, group_norm, instance_norm, rms_norm, residual"
            ),
            "optimization.batch_size": "Input should be greater than or equal to 1, not 0",
            "optimization.optimizer.sgd.lr": "Input should be greater than 0, not -1.0",
            "optimization.schedule": (
                "choose one of constant, step, multi_step, exponential, polynomial, cosine, cosine_restarts, "
                "one_cycle, inverse_sqrt, plateau"
            ),
            "compute.precision": "Input should be 'float32', 'bfloat16' or 'float16', not 9",
            "data.dataset": "this field is required",
        }

    def test_an_empty_request_misses_what_is_required(self):
        with pytest.raises(dn.InvalidSpecError) as caught:
            wire.from_message(training_job_pb2.TrainingJob(), dn.Submission, path="training_job")

        assert caught.value.problems == (("training_job.spec", "this field is required"),)

    @pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf"), 1e300, -0.5])
    def test_a_number_out_of_its_limits(self, number):
        found = problems({"optimization": {"optimizer": {"adam": {"lr": number, "eps": number}}}})

        assert found.keys() == {"optimization.optimizer.adam.lr", "optimization.optimizer.adam.eps"}

    @pytest.mark.parametrize("number", [2**63 - 1, -(2**63), 0])
    def test_an_integer_out_of_its_limits(self, number):
        found = problems(
            {
                "architecture": {"mlp": {"hidden": [8, number]}},
                "optimization": {"epochs": number},
                "data": {"dataset": "digits", "train_samples": number},
            }
        )

        assert found.keys() == {
            "architecture.mlp.hidden[1]",
            "optimization.epochs",
            "data.train_samples",
        }

    def test_the_largest_seed_is_kept_exactly(self):
        assert read(MINIMAL | {"seed": 2**63 - 1}).seed == 2**63 - 1

    def test_a_field_that_this_version_does_not_know(self):
        message = training_spec_pb2.TrainingSpec(
            **MINIMAL
            | {"optimization": {"optimizer": {"adam": {}}}, "regularization": {"dropout": {}}}
        )
        for part in (
            message,
            message.data,
            message.optimization.optimizer.adam,
            message.regularization.dropout,
        ):
            with_unknown_field(part, 999)

        with pytest.raises(dn.InvalidSpecError) as caught:
            wire.from_message(through(message), dn.TrainingSpec, path="spec")

        text = "field number 999 is not known to this version of the service"
        assert sorted(caught.value.problems) == [
            ("spec", text),
            ("spec.data", text),
            ("spec.optimization.optimizer.adam", text),
            ("spec.regularization.dropout", text),
        ]

    def test_a_member_of_a_union_that_this_version_does_not_know(self):
        message = training_spec_pb2.TrainingSpec(**MINIMAL)
        message.architecture.Clear()
        with_unknown_field(message.architecture, 12)

        with pytest.raises(dn.InvalidSpecError) as caught:
            wire.from_message(through(message), dn.TrainingSpec, path="spec")

        assert caught.value.problems == (
            ("spec.architecture", "field number 12 is not known to this version of the service"),
        )

    def test_the_problems_of_a_submission_outside_its_spec(self):
        message = training_job_pb2.TrainingJob(
            spec=training_spec_pb2.TrainingSpec(**MINIMAL),
            display_name="",
            labels={"Team\n" * 50: "x", "ok": "a\nb"},
            priority=1001,
        )

        with pytest.raises(dn.InvalidSpecError) as caught:
            wire.from_message(message, dn.Submission, path="training_job")

        assert {field for field, _ in caught.value.problems} == {
            "training_job.display_name",
            "training_job.labels",
            "training_job.labels.ok",
            "training_job.priority",
        }

    def test_what_only_the_service_sets_is_ignored(self):
        message = wire.to_message(
            job(progress=Progress(phase="testing", epoch=1, epochs=1, step=1, steps=1), attempt=3),
            training_job_pb2.TrainingJob,
        )

        submission = wire.from_message(message, dn.Submission, path="training_job")

        assert submission == dn.Submission(display_name="first", spec=job().spec)

    @pytest.mark.parametrize("depth", [9, 45])
    def test_blocks_nested_too_deep(self, depth):
        layer: dict[str, Any] = {"flatten": {}}
        for _ in range(depth):
            layer = {"residual": {"layers": [layer]}}

        found = problems({"architecture": {"sequential": {"layers": [layer]}}})

        path = "architecture.sequential" + ".layers[0].residual" * depth
        assert found == {path: "residual blocks nest at most 8 deep"}

    @given(message=strategies.messages(training_job_pb2.TrainingJob, depth=9))
    def test_whatever_comes_is_understood_or_refused_with_paths_that_exist(self, message):
        problems: Sequence[dn.Problem] = ()
        try:
            wire.from_message(through(message), dn.Submission, path="training_job")
        except dn.InvalidSpecError as error:
            problems = error.problems

        for field, text in problems:
            assert text
            assert exists(field.removeprefix("training_job"), message.DESCRIPTOR), field


def exists(path: str, descriptor: Descriptor) -> bool:
    """Whether `.spec.data` and the like leads to a field."""
    name, rest = re.fullmatch(r"\.?(\w*)(?:\[\d+\])?(.*)", path, re.DOTALL).groups()  # type: ignore[union-attr]
    if not path:
        return True
    field = descriptor.fields_by_name.get(name)
    if field is None:
        return False
    if field.message_type is None or field.message_type.GetOptions().map_entry:
        return name == "labels" or not rest
    return exists(rest, field.message_type)


class TestLenientReading:
    def test_unknown_fields_are_dropped(self):
        message = wire.to_message(job(), training_job_pb2.TrainingJob)
        with_unknown_field(message, 999)
        with_unknown_field(message.spec.architecture.mlp, 999)

        assert wire.from_message(through(message), TrainingJob) == job()

    def test_a_state_of_a_newer_service(self):
        message = wire.to_message(job(), training_job_pb2.TrainingJob)
        message.state = 77  # type: ignore[assignment]

        state = wire.from_message(through(message), TrainingJob).state

        assert isinstance(state, State)
        assert (state, state.value, str(state)) == ("unknown_77", "unknown_77", "unknown_77")
        assert not state.terminal
        assert not state.active

    def test_a_value_of_a_newer_service_leaves_everything_else_as_it_is(self):
        message = wire.to_message(
            job(progress=Progress(phase="training", epoch=1, epochs=2, step=3, steps=6)),
            training_job_pb2.TrainingJob,
        )
        message.progress.phase = 78  # type: ignore[assignment]

        progress = wire.from_message(through(message), TrainingJob).progress

        assert progress is not None
        assert str(progress.phase) == "unknown_78"
        assert (progress.epoch, progress.epochs, progress.step, progress.steps) == (1, 2, 3, 6)

    def test_a_spec_beyond_the_limits_of_this_version(self):
        message = wire.to_message(job(), training_job_pb2.TrainingJob)
        message.spec.optimization.epochs = 10**9
        message.spec.architecture.Clear()

        spec = wire.from_message(through(message), TrainingJob).spec

        assert isinstance(spec, dn.TrainingSpec)
        assert spec.optimization.epochs == 10**9
        assert spec.architecture is None
        assert spec.data == dn.Data(dataset="digits")

    def test_an_event_of_a_kind_that_this_version_does_not_know(self):
        event = Event(
            training_job="trainingJobs/first",
            sequence=7,
            time=NOW,
            attempt=1,
            payload=CheckpointWritten(epoch=1, step=2),
        )
        message = wire.to_message(event, training_event_pb2.TrainingEvent)
        message.payload.Clear()
        with_unknown_field(message.payload, 99)

        back = wire.from_message(through(message), Event)

        assert back.payload is None
        assert (back.training_job, back.sequence, back.time) == ("trainingJobs/first", 7, NOW)

    def test_a_value_of_a_newer_service_cannot_be_sent_back(self):
        message = wire.to_message(job(), training_job_pb2.TrainingJob)
        message.spec.compute.device = 9  # type: ignore[assignment]
        spec = wire.from_message(message, TrainingJob).spec

        with pytest.raises(ValueError, match="cannot send 'unknown_9'"):
            wire.to_message(spec, training_spec_pb2.TrainingSpec)

    def test_a_diverged_loss_arrives(self):
        metrics: dict[str, Any] = dict.fromkeys(EpochMetrics.model_fields, 1) | {
            "layers": (),
            "dropout_rates": {"rate": 0.5},
        }
        event = Event(
            training_job="trainingJobs/first",
            sequence=1,
            time=NOW,
            attempt=1,
            payload=EpochCompleted(metrics=EpochMetrics(**metrics | {"train_loss": float("nan")})),
        )

        back = wire.from_message(wire.to_message(event, training_event_pb2.TrainingEvent), Event)

        assert '"train_loss": NaN' in dumped(back)
        assert dumped(back) == dumped(event)


def test_two_types_that_differ_are_refused():
    with pytest.raises(TypeError, match=r"Adam and dropnorm\.v1\.Sgd differ in \['beta1', 'beta2'"):
        wire.to_message(dn.Adam(), optimization_pb2.Sgd)


def test_every_list_and_map_of_a_request_has_a_limit() -> None:
    """What has none is read to its end, item by item, before it is refused."""
    unlimited = [
        f"{each.model.__name__}.{name}"
        for each in codecs(wire._codec_of(dn.Submission, training_job_pb2.TrainingJob.DESCRIPTOR))
        for name, _, codec in each.fields
        if isinstance(inner := getattr(codec, "_listed", codec), Copied | Repeated)
        and inner._most is None
    ]
    assert unlimited == []


def codecs(codec: ModelCodec) -> Sequence[ModelCodec]:
    """The codecs of a model and of all models within it."""
    found: dict[type[BaseModel], ModelCodec] = {}

    def collect(each: Any) -> None:
        if isinstance(each, ModelCodec):
            if each.model not in found:
                found[each.model] = each
                for _, _, inner in each.fields:
                    collect(inner)
        elif isinstance(each, UnionCodec):
            for member in each._members.values():
                collect(member)
        elif isinstance(each, OrDefault):
            collect(each._listed)
        elif isinstance(each, Repeated):
            collect(each._item)

    collect(codec)
    assert len(found) > 40, "it has come to the architectures and schedules"
    return list(found.values())
