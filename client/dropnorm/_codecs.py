"""Each kind of type in both forms: a value of a model, and a value of a protobuf message."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sized
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast, get_args

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet
from google.rpc import error_details_pb2, status_pb2
from pydantic import BaseModel

from dropnorm.results import JobError
from dropnorm.spec import InvalidSpecError, Problem
from dropnorm.spec._base import join_path, too_long

ERROR_DOMAIN: Final = "dropnorm.dev"
"""Domain of every google.rpc.ErrorInfo of this service."""
TAG: Final = "kind"
"""The field that says which member of a union a model is, and the oneof that says the same."""

_ABSENT: Final = object()
# A network of so many layers, blocks and what they are made of has no use, and reading takes 35 us for each.
_MOST_PARTS: Final = 5_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def unknown_fields(message: Message, path: str) -> list[Problem]:
    """The fields of a message itself that its type does not have, each number once."""
    unknown = UnknownFieldSet(message)
    numbers = sorted({unknown[index].field_number for index in range(len(unknown))})
    return [
        Problem(path, f"field number {number} is not known to this version of the service")
        for number in numbers
    ]


class Findings:
    """What a strict reading meets that pydantic cannot see."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.undecided: set[str] = set()
        """Paths of what was not read, and of unions without a member: what pydantic will say of them is less clear."""
        self._parts = 0

    def unknown_fields(self, message: Message, path: str) -> None:
        self.problems += unknown_fields(message, path)

    def too_many(self, value: Sized, most: int | None, path: str) -> bool:
        """Whether a list or map has more items than it may: then none is looked at, for each takes time and memory."""
        if most is None or len(value) <= most:
            return False
        self.undecided.add(path)
        self.problems.append(Problem(path, too_long(most, len(value))))
        return True

    def part(self, path: str) -> None:
        """A message is met within a list. Lists within lists can have far more of them than each may have.

        Raises:
            InvalidSpecError: it is one too many.
        """
        self._parts += 1
        if self._parts > _MOST_PARTS:
            text = f"this is one part too many: lists may have {_MOST_PARTS:,} parts in all"
            raise InvalidSpecError([*self.problems, Problem(path, text)])

    def empty_union(self, path: str, tags: Iterable[str]) -> None:
        self.undecided.add(path)
        if not self.problems or self.problems[-1].field != path:  # else a member that is unknown
            self.problems.append(Problem(path, f"choose one of {', '.join(tags)}"))


class Codec:
    """One type in both forms. This one: a type that is the same in both."""

    def write(self, value: Any, only_set: bool) -> Any:
        """What a message's constructor takes for a model's value."""
        return value

    def read(self, value: Any, path: str, found: Findings | None) -> Any:
        """Plain data that pydantic takes, or _ABSENT; with `found`, read strictly."""
        return value

    def construct(self, plain: Any) -> Any:
        """What `read` gave, as models and without validation."""
        return plain


class Copied(Codec):
    """A map or list whose items are the same in both forms.

    Args:
        container: which.
        most: items that a request may have.
    """

    def __init__(
        self, container: type[dict[Any, Any]] | type[tuple[Any, ...]], most: int | None
    ) -> None:
        self._container = container
        self._most = most

    def read(self, value: Any, path: str, found: Findings | None) -> Any:
        if found is not None and found.too_many(value, self._most, path):
            return self._container()
        return self._container(value)


class Time(Codec):
    def write(self, value: Any, only_set: bool) -> Any:
        since = value - _EPOCH
        return {"seconds": since.days * 86400 + since.seconds, "nanos": since.microseconds * 1000}

    def read(self, value: Any, path: str, found: Findings | None) -> Any:
        return _EPOCH + timedelta(seconds=value.seconds, microseconds=value.nanos // 1000)


class Status(Codec):
    def write(self, value: Any, only_set: bool) -> Any:
        status = status_pb2.Status(code=value.code, message=value.message)
        status.details.add().Pack(
            error_details_pb2.ErrorInfo(
                reason=value.reason, domain=ERROR_DOMAIN, metadata=value.metadata
            )
        )
        return status

    def read(self, value: Any, path: str, found: Findings | None) -> Any:
        info = error_details_pb2.ErrorInfo()
        for detail in value.details:
            if detail.Unpack(info):
                break
        return {
            "code": value.code,
            "message": value.message,
            "reason": info.reason,
            "metadata": dict(info.metadata),
        }

    def construct(self, plain: Any) -> Any:
        return JobError(**plain)


class EnumCodec(Codec):
    def __init__(self, annotation: Any, descriptor: EnumDescriptor) -> None:
        self._enum = annotation if isinstance(annotation, type) else None
        prefix = _upper_snake(descriptor.name)
        numbers = {value.name: value.number for value in descriptor.values}
        self._numbers = {
            value: numbers[f"{prefix}_{str(value).upper()}"]
            for value in (annotation if self._enum else get_args(annotation))
        }
        self._values = {number: value for value, number in self._numbers.items()}

    def write(self, value: Any, only_set: bool) -> Any:
        try:
            return self._numbers[value]
        except KeyError:
            raise ValueError(
                f"this version of dropnorm cannot send {str(value)!r}, which a newer service gave; "
                "upgrade dropnorm"
            ) from None

    def read(self, value: Any, path: str, found: Findings | None) -> Any:
        known = self._values.get(value)
        if known is not None:
            return known
        if value == 0:
            return _ABSENT
        return value if found is not None else self._stand_in(f"unknown_{value}")

    def _stand_in(self, name: str) -> str:
        """A member that the enum lacks, with the methods of any; a plain string for a Literal."""
        if self._enum is None:
            return name
        member: Any = str.__new__(self._enum, name)
        member._name_, member._value_ = name.upper(), name
        return cast(str, member)


class Repeated(Codec):
    """A list of messages, or of what else differs between both forms.

    Args:
        item: of each.
        most: items that a request may have.
    """

    def __init__(self, item: Codec, most: int | None) -> None:
        self._item = item
        self._most = most

    def write(self, value: Any, only_set: bool) -> Any:
        return [self._item.write(item, only_set) for item in value]

    def read(self, value: Any, path: str, found: Findings | None) -> Any:
        if found is None:
            return tuple(self._item.read(item, path, None) for item in value)
        if found.too_many(value, self._most, path):
            return ()
        return tuple(self._read(item, f"{path}[{n}]", found) for n, item in enumerate(value))

    def _read(self, item: Any, path: str, found: Findings) -> Any:
        found.part(path)
        return self._item.read(item, path, found)

    def construct(self, plain: Any) -> Any:
        return tuple(map(self._item.construct, plain))


class OrDefault(Codec):
    """A list that has a default. Protobuf cannot tell an empty one from an absent one, so the default is both."""

    def __init__(self, listed: Codec) -> None:
        self._listed = listed

    def write(self, value: Any, only_set: bool) -> Any:
        return self._listed.write(value, only_set)

    def read(self, value: Any, path: str, found: Findings | None) -> Any:
        return self._listed.read(value, path, found) if len(value) else _ABSENT

    def construct(self, plain: Any) -> Any:
        return self._listed.construct(plain)


class UnionCodec(Codec):
    def __init__(self, members: Mapping[str, ModelCodec]) -> None:
        self._members = members
        self._tags = {member.model: tag for tag, member in members.items()}

    def write(self, value: Any, only_set: bool) -> Any:
        tag = self._tags[type(value)]
        return {tag: self._members[tag].write(value, only_set)}

    def read(self, value: Any, path: str, found: Findings | None) -> Any:
        if found is not None:
            found.unknown_fields(value, path)
        tag = value.WhichOneof(TAG)
        if tag is None:
            if found is None:
                return None
            found.empty_union(path, self._members)
            return {}
        here = "" if found is None else join_path(path, tag)
        plain = self._members[tag].read(getattr(value, tag), here, found)
        plain[TAG] = tag
        return plain

    def construct(self, plain: Any) -> Any:
        return None if plain is None else self._members[plain[TAG]].construct(plain)


class ModelCodec(Codec):
    """A model and a message, field by field."""

    def __init__(self, model: type[BaseModel]) -> None:
        self.model = model
        self.fields: list[tuple[str, bool, Codec | None]] = []
        """Name, whether the message can tell that it is absent, codec (None: the same in both)."""

    def write(self, value: Any, only_set: bool) -> dict[str, Any]:
        values = value.__dict__
        written = value.model_fields_set if only_set else values
        return {
            name: here if codec is None else codec.write(here, only_set)
            for name, _, codec in self.fields
            if name in written and (here := values[name]) is not None
        }

    def read(self, value: Any, path: str, found: Findings | None) -> dict[str, Any]:
        if found is not None:
            found.unknown_fields(value, path)
        plain = {}
        for name, presence, codec in self.fields:
            if presence and not value.HasField(name):
                continue
            here = getattr(value, name)
            if codec is not None:
                here = codec.read(here, "" if found is None else join_path(path, name), found)
                if here is _ABSENT:
                    continue
            plain[name] = here
        return plain

    def construct(self, plain: Any) -> Any:
        required = {name for name, field in self.model.model_fields.items() if field.is_required()}
        values = dict.fromkeys(required)
        for name, _, codec in self.fields:
            if name in plain:
                values[name] = codec.construct(plain[name]) if codec else plain[name]
        return self.model.model_construct(**values)


def _upper_snake(name: str) -> str:
    """`LastBatch` -> `LAST_BATCH`."""
    return "".join(f"_{letter}" if letter.isupper() else letter for letter in name)[1:].upper()
