"""Spec and results <-> protobuf: one codec by field name, worked out once per pair of types.

A model's field and a message's field of the same name are the same thing. A `Literal` or enum is a
proto enum, a union tagged by `kind` is a message with one oneof of that name whose members are the
tags, a datetime is a Timestamp, a JobError a google.rpc.Status. What protobuf carries becomes plain
data, which pydantic validates in one go. Results go that way too: building them without validation
(`model_construct`, in Python) takes five times as long as validation does.

What a client asks for (any SpecModel) is read strictly: nothing it set may be ignored. What the
service answers (any ResultModel) is read leniently, because it may be newer than its reader.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import cache
from types import UnionType
from typing import Annotated, Any, Final, TypeVar, Union, cast, get_args, get_origin

from annotated_types import MaxLen
from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from dropnorm._codecs import (
    ERROR_DOMAIN,
    TAG,
    Codec,
    Copied,
    EnumCodec,
    Findings,
    ModelCodec,
    OrDefault,
    Repeated,
    Status,
    Time,
    UnionCodec,
    unknown_fields,
)
from dropnorm.results import JobError
from dropnorm.spec import InvalidSpecError, SpecModel
from dropnorm.spec._base import problems_of

__all__ = ["ERROR_DOMAIN", "from_message", "to_message", "unknown_fields"]

AnyMessage = TypeVar("AnyMessage", bound=Message)
AnyModel = TypeVar("AnyModel", bound=BaseModel)

_SET_BY_SERVICE: Final = {field_behavior_pb2.OUTPUT_ONLY, field_behavior_pb2.IDENTIFIER}


def to_message(
    model: BaseModel, message_type: type[AnyMessage], *, only_set: bool = False
) -> AnyMessage:
    """A model as a protobuf message.

    Args:
        model: a spec, a submission, or a result.
        message_type: the message that describes the same thing.
        only_set: leave out every field that nobody set, so that the reader's defaults hold.
    """
    codec = _codec_of(type(model), message_type.DESCRIPTOR)
    return message_type(**codec.write(model, only_set))


def from_message(message: Message, model_type: type[AnyModel], *, path: str = "") -> AnyModel:
    """A model from a protobuf message.

    Args:
        message: what was received.
        model_type: what it describes. A SpecModel is read strictly: an unknown field or value is a
            problem. A ResultModel is read leniently: unknown fields are dropped, an unknown enum
            value becomes `unknown_<number>`, a union of an unknown kind becomes None.
        path: path of the message within the request, which every problem's field begins with.

    Raises:
        InvalidSpecError: with everything that is wrong; only when read strictly.
    """
    codec = _codec_of(model_type, message.DESCRIPTOR)
    if issubclass(model_type, SpecModel):
        return cast(AnyModel, _read_strictly(codec, message, path))
    values = codec.read(message, path, None)
    try:
        return model_type.model_validate(values)
    except ValidationError:  # the service is newer, and says something that the models do not know
        return cast(AnyModel, codec.construct(values))


def _read_strictly(codec: ModelCodec, message: Message, path: str) -> BaseModel:
    found = Findings()
    values = codec.read(message, path, found)
    try:
        model = codec.model.model_validate(values)
    except ValidationError as error:
        problems = [problem.below(path) for problem in problems_of(error)]
        decided = [problem for problem in problems if problem.field not in found.undecided]
        raise InvalidSpecError([*found.problems, *decided]) from error
    if found.problems:
        raise InvalidSpecError(found.problems)
    return model


@cache
def _codec_of(model: type[BaseModel], descriptor: Descriptor) -> ModelCodec:
    return _compile(model, descriptor, {})


def _compile(
    model: type[BaseModel], descriptor: Descriptor, known: dict[type[BaseModel], ModelCodec]
) -> ModelCodec:
    """The codec of two types and, through `known`, of all they contain; a layer contains layers.

    Raises:
        TypeError: the two do not describe the same thing.
    """
    if model in known:
        return known[model]
    codec = known[model] = ModelCodec(model)
    names = [name for name in model.model_fields if name != TAG]
    _check_fields(model, names, descriptor)
    for name in names:
        field = descriptor.fields_by_name[name]
        info = model.model_fields[name]
        inner = _codec(_core(info.annotation), field, known, _most(info))
        if field.is_repeated and not info.is_required() and info.default not in ((), {}):
            inner = OrDefault(inner)
        same = type(inner) is Codec
        codec.fields.append((name, field.has_presence, None if same else inner))
    return codec


def _check_fields(model: type[BaseModel], names: Sequence[str], descriptor: Descriptor) -> None:
    wrong = set(names) ^ set(descriptor.fields_by_name)
    for field in descriptor.fields:
        # The stub of google.api gives the extension another type than that of protobuf accepts.
        extensions: Any = field.GetOptions().Extensions
        behavior = set(extensions[field_behavior_pb2.field_behavior])
        if issubclass(model, SpecModel) and _SET_BY_SERVICE & behavior:
            wrong.discard(field.name)  # ignored in a request, by AIP-203
    if wrong:
        raise TypeError(f"{model.__name__} and {descriptor.full_name} differ in {sorted(wrong)}")


def _most(info: FieldInfo) -> int | None:
    """Items that a list or map may have; None: any number."""
    constraints = _constraints(info.annotation, info.metadata)
    return next((each.max_length for each in constraints if isinstance(each, MaxLen)), None)


def _constraints(annotation: Any, metadata: Iterable[Any]) -> Iterator[Any]:
    """Of a type itself or, of what may be None, of what it is else; not of its items."""
    for each in metadata:
        yield from each.metadata if isinstance(each, FieldInfo) else (each,)
    if get_origin(annotation) is Annotated:
        kind, *more = get_args(annotation)
        yield from _constraints(kind, more)
    elif get_origin(annotation) in (Union, UnionType):
        for kind in get_args(annotation):
            yield from _constraints(kind, ())


def _codec(
    annotation: Any,
    field: FieldDescriptor,
    known: dict[type[BaseModel], ModelCodec],
    most: int | None = None,
) -> Codec:
    origin = get_origin(annotation)
    if origin is dict:
        return Copied(dict, most)
    if origin is tuple:
        item = _codec(_core(get_args(annotation)[0]), field, known)
        return Copied(tuple, most) if type(item) is Codec else Repeated(item, most)
    if field.enum_type is not None:
        return EnumCodec(annotation, field.enum_type)
    if field.message_type is None:
        return Codec()
    if annotation is datetime:
        return Time()
    if annotation is JobError:
        return Status()
    if origin in (Union, UnionType):
        return UnionCodec(_members(get_args(annotation), field.message_type, known))
    return _compile(annotation, field.message_type, known)


def _members(
    models: Sequence[type[BaseModel]],
    wrapper: Descriptor,
    known: dict[type[BaseModel], ModelCodec],
) -> dict[str, ModelCodec]:
    """The members of a union by their tags."""
    members = {}
    for model in models:
        tag = model.model_fields[TAG].default
        members[tag] = cast(ModelCodec, _codec(model, wrapper.fields_by_name[tag], known))
    return members


def _core(annotation: Any) -> Any:
    """The type without its constraints and without `| None`."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
        if len(kinds) == 1:
            return _core(kinds[0])
    return annotation
