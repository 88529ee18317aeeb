"""The contract has what the models have: the same fields, types and values, in both directions."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Literal, get_args, get_origin

from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from pydantic import BaseModel
from tests.contract import (
    METHODS,
    PAIRS,
    behaviors,
    comments,
    each_pair,
    fields_of,
    is_union,
    kind_of,
    members_of,
    message_of,
)

import dropnorm.results
import dropnorm.spec
from dropnorm.results import JobError
from dropnorm.results._base import ResultModel
from dropnorm.spec import DatasetManifest, SpecModel, Submission, norms
from dropnorm.v1 import training_job_pb2, training_service_pb2

UPLOADS = {"dropnorm.v1.UploadHeader"}
"""What of a request is a message of its own."""

UPDATED = {"dropnorm.v1.TrainingJob", "dropnorm.v1.Dataset", "dropnorm.v1.Model"}
"""What the service tells and an Update takes."""

SCALARS = {
    FieldDescriptor.TYPE_INT64: int,
    FieldDescriptor.TYPE_DOUBLE: float,
    FieldDescriptor.TYPE_BOOL: bool,
    FieldDescriptor.TYPE_STRING: str,
    FieldDescriptor.TYPE_BYTES: bytes,
}


@each_pair
def test_both_have_the_same_fields(model: type[BaseModel], descriptor: Descriptor) -> None:
    names = set(descriptor.fields_by_name)
    if model is Submission:
        names = {
            name
            for name, field in descriptor.fields_by_name.items()
            if not behaviors(field)
            & {field_behavior_pb2.OUTPUT_ONLY, field_behavior_pb2.IDENTIFIER}
        }

    assert names == set(fields_of(model))


@each_pair
def test_fields_have_the_same_type(model: type[BaseModel], descriptor: Descriptor) -> None:
    for name, info in fields_of(model).items():
        core, container, _ = kind_of(info.annotation)
        field = descriptor.fields_by_name[name]
        if container is dict:
            entry = message_of(field)
            assert entry.GetOptions().map_entry
            assert [SCALARS[part.type] for part in entry.fields] == [str, core]
            continue
        assert field.is_repeated == (container is tuple), field.full_name
        check_type(core, field)


def check_type(core: Any, field: FieldDescriptor) -> None:
    if field.enum_type is not None:
        values = (
            get_args(core) if get_origin(core) is Literal else [member.value for member in core]
        )
        assert enum_values(field.enum_type) == {str(value).upper() for value in values}
    elif core is datetime:
        assert message_of(field).full_name == "google.protobuf.Timestamp"
    elif core is JobError:
        assert message_of(field).full_name == "google.rpc.Status"
    elif is_union(core):
        (union,) = message_of(field).oneofs
        assert union.name == "kind"
        assert {member.name for member in union.fields} == set(members_of(core))
        assert {member.name for member in message_of(field).fields} == set(members_of(core))
    elif issubclass(core, BaseModel):
        assert message_of(field).file.package == "dropnorm.v1"
    else:
        assert SCALARS[field.type] is core, field.full_name


def enum_values(enum: EnumDescriptor) -> set[str]:
    """The values without prefix; zero says nothing and is none."""
    prefix = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", enum.name).upper() + "_"
    assert enum.values_by_number[0].name == f"{prefix}UNSPECIFIED"
    return {value.name.removeprefix(prefix) for value in enum.values if value.number}


@each_pair
def test_what_may_be_absent_can_be_told_from_zero(
    model: type[BaseModel], descriptor: Descriptor
) -> None:
    for name, info in fields_of(model).items():
        _, container, optional = kind_of(info.annotation)
        field = descriptor.fields_by_name[name]
        if container is None and field.message_type is None:
            submitted = descriptor.name == "TrainingJob" and name in Submission.model_fields
            wanted = issubclass(model, SpecModel) or optional or submitted
            assert field.has_presence == wanted, field.full_name


def test_all_of_a_job_is_either_submitted_or_set_by_the_service():
    for field in training_job_pb2.TrainingJob.DESCRIPTOR.fields:
        submitted = field.name in Submission.model_fields
        set_by_service = behaviors(field) & {
            field_behavior_pb2.OUTPUT_ONLY,
            field_behavior_pb2.IDENTIFIER,
        }
        assert submitted != bool(set_by_service), field.name


REQUEST_BEHAVIORS = {field_behavior_pb2.REQUIRED, field_behavior_pb2.OPTIONAL}
SERVICE_BEHAVIORS = {field_behavior_pb2.OUTPUT_ONLY, field_behavior_pb2.IDENTIFIER}


def test_every_field_says_who_sets_it():
    """AIP-203: a caller may or must, or the service alone does."""
    sent = {descriptor.full_name for model, descriptor in PAIRS if issubclass(model, SpecModel)}
    told = {descriptor.full_name for _, descriptor in PAIRS} - sent
    sent |= {method.input_type.full_name for method in METHODS} | UPLOADS
    told |= {method.output_type.full_name for method in METHODS} - sent
    for parents in (sent, told):
        parents |= unions_in(parents)

    fields = [(name, field) for name in contract_messages() for field in message(name).fields]
    assert len(fields) > 300
    for name, field in fields:
        of_caller, of_service = name in sent | UPDATED, name in told | UPDATED
        allowed = REQUEST_BEHAVIORS if of_caller else set()
        allowed |= SERVICE_BEHAVIORS if of_service else set()
        assert len(behaviors(field)) == 1, field.full_name
        assert behaviors(field) <= allowed, field.full_name


def test_every_model_is_in_the_contract():
    paired = {model for model, _ in PAIRS}
    public = {
        value
        for module in (dropnorm.spec, dropnorm.spec.layers, dropnorm.results)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, SpecModel | ResultModel)
    }
    bases = {
        SpecModel,
        dropnorm.spec.DropoutSettings,
        dropnorm.spec.BatchNormSettings,
        norms.SampleNormSettings,
        norms.GroupNormSettings,
    }

    # A manifest is part of a data set's file, which the contract carries as bytes.
    assert public - bases - paired == {JobError, DatasetManifest}


def test_every_message_is_a_model_a_union_or_part_of_a_request():
    paired = {descriptor.full_name for _, descriptor in PAIRS}
    unions = unions_in(paired)
    calls = {method.input_type.full_name for method in METHODS} | UPLOADS
    calls |= {method.output_type.full_name for method in METHODS}

    assert contract_messages() <= paired | unions | calls


def contract_messages() -> set[str]:
    return {name for name in comments() if name.count(".") == 2 and is_message(name)}


def unions_in(names: set[str]) -> set[str]:
    """The messages that only say which of several kinds a field of these messages is."""
    return {
        message_of(field).full_name
        for name in names
        for field in message(name).fields
        if field.message_type is not None and "kind" in field.message_type.oneofs_by_name
    }


def message(name: str) -> Descriptor:
    return training_service_pb2.DESCRIPTOR.pool.FindMessageTypeByName(name)


def is_message(name: str) -> bool:
    try:
        return bool(message(name))
    except KeyError:
        return False
