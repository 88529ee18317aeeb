"""Which model belongs to which message of the contract, and what the contract's comments say."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, cast, get_args, get_origin

import pytest
from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import Message
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from dropnorm.results import (
    Dataset,
    Event,
    JobError,
    Model,
    ModelExport,
    Plan,
    Prediction,
    TrainingJob,
    Worker,
)
from dropnorm.spec import DropoutSampling, SpecModel, Submission, TrainingSpec
from dropnorm.v1 import (
    dataset_pb2,
    dataset_service_pb2,
    model_pb2,
    model_service_pb2,
    plan_pb2,
    training_event_pb2,
    training_job_pb2,
    training_service_pb2,
    training_spec_pb2,
    worker_pb2,
)

ROOTS: list[tuple[type[BaseModel], type[Message]]] = [
    (Submission, training_job_pb2.TrainingJob),
    (TrainingSpec, training_spec_pb2.TrainingSpec),
    (TrainingJob, training_job_pb2.TrainingJob),
    (Event, training_event_pb2.TrainingEvent),
    (Plan, plan_pb2.TrainingPlan),
    (Worker, worker_pb2.Worker),
    (DropoutSampling, model_pb2.DropoutSampling),
    (Prediction, model_pb2.Prediction),
    (Dataset, dataset_pb2.Dataset),
    (ModelExport, model_pb2.ModelExport),
    (Model, model_pb2.Model),
]

METHODS = [
    method
    for module in (training_service_pb2, dataset_service_pb2, model_service_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
"""Every rpc of the contract."""


class Kind(NamedTuple):
    """What an annotation comes to: the type at its core, and what is around it."""

    core: Any
    container: type | None
    optional: bool


def kind_of(annotation: Any) -> Kind:
    optional = False
    while True:
        origin, arguments = get_origin(annotation), get_args(annotation)
        if origin is Annotated:
            annotation = arguments[0]
        elif origin in (Union, UnionType) and type(None) in arguments:
            (annotation,) = [argument for argument in arguments if argument is not type(None)]
            optional = True
        else:
            break
    if origin is tuple:
        return Kind(kind_of(arguments[0]).core, tuple, optional)
    if origin is dict:
        return Kind(kind_of(arguments[1]).core, dict, optional)
    return Kind(annotation, None, optional)


def fields_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    return {name: field for name, field in model.model_fields.items() if name != "kind"}


def members_of(union: Any) -> dict[str, type[BaseModel]]:
    """The models of a union by their tags."""
    return {model.model_fields["kind"].default: model for model in get_args(union)}


def is_union(core: Any) -> bool:
    return get_origin(core) in (Union, UnionType)


def below(core: Any, descriptor: Descriptor) -> Iterator[tuple[type[BaseModel], Descriptor]]:
    """The pairs that a field's type leads to directly."""
    if is_union(core):
        for tag, model in members_of(core).items():
            yield model, message_of(descriptor.fields_by_name[tag])
    elif isinstance(core, type) and issubclass(core, BaseModel) and core is not JobError:
        yield core, descriptor


def message_of(field: FieldDescriptor) -> Descriptor:
    assert field.message_type is not None, f"{field.full_name} is no message"
    return field.message_type


def all_pairs() -> list[tuple[type[BaseModel], Descriptor]]:
    found: list[tuple[type[BaseModel], Descriptor]] = []
    open_ = [(model, cast(Descriptor, message.DESCRIPTOR)) for model, message in ROOTS]
    while open_:
        model, descriptor = pair = open_.pop()
        if pair in found:
            continue
        found.append(pair)
        for name, info in fields_of(model).items():
            core, field = kind_of(info.annotation).core, descriptor.fields_by_name.get(name)
            if field is not None and field.message_type is not None:
                open_.extend(below(core, message_of(field)))
    return sorted(found, key=lambda pair: (pair[0].__module__, pair[0].__name__))


PAIRS = all_pairs()
each_pair = pytest.mark.parametrize(
    ("model", "descriptor"),
    PAIRS,
    ids=[f"{model.__name__}-{message.name}" for model, message in PAIRS],
)
each_spec_pair = pytest.mark.parametrize(
    ("model", "descriptor"),
    [pair for pair in PAIRS if issubclass(pair[0], SpecModel)],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)


def behaviors(field: FieldDescriptor) -> set[int]:
    extensions: Any = field.GetOptions().Extensions
    return set(extensions[field_behavior_pb2.field_behavior])


@cache
def comments() -> dict[str, str]:
    """The comment of everything that has a name in the contract, on one line, by full name."""
    buf = Path(sys.executable).with_name("buf")
    protos = Path(__file__).parents[1] / "protos"
    image = subprocess.run(
        [buf, "build", protos, "-o", "-#format=binpb"], capture_output=True, check=True
    )
    found: dict[str, str] = {}
    for file in FileDescriptorSet.FromString(image.stdout).file:
        if file.package == "dropnorm.v1":
            found |= dict(comments_of(file))
    return found


def comments_of(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    for location in file.source_code_info.location:
        element: Any = file
        names, path = [file.package], list(location.path)
        while len(path) >= 2 and hasattr(element, "DESCRIPTOR"):
            parts = getattr(element, element.DESCRIPTOR.fields_by_number[path[0]].name)
            element, path = parts[path[1]] if hasattr(parts, "add") else None, path[2:]
            names.append(getattr(element, "name", ""))
        if not path and all(names) and len(names) > 1:
            yield ".".join(names), " ".join(location.leading_comments.split())
