"""What an Update changes of a resource, as AIP-134 has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.api import field_behavior_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from dropnorm.spec import Problem
from dropnorm_service.jobs.errors import InvalidRequest

_SET_BY_SERVICE = {field_behavior_pb2.OUTPUT_ONLY, field_behavior_pb2.IDENTIFIER}
_MOST_PATHS = 100


def changes_of(
    resource: Message, mask: FieldMask, *, changeable: Sequence[str], field: str
) -> dict[str, Any]:
    """The new values of the fields that a request changes, by name.

    Args:
        resource: as the request has it.
        mask: the fields that change; empty: those that are set.
        changeable: the fields that can be changed.
        field: where the resource stands in the request.

    Raises:
        InvalidRequest: others are to be changed, or none.
    """
    can = f"what can be changed is {', '.join(changeable)}"
    if len(mask.paths) > _MOST_PATHS:
        raise InvalidRequest.of(
            "update_mask", f"give at most {_MOST_PATHS} paths, not {len(mask.paths)}; {can}"
        )
    if "*" in mask.paths:
        names = set(changeable)
    elif mask.paths:
        names = set(mask.paths)
        _refuse("update_mask", names - set(changeable), can)
    else:
        names = {each.name for each, _ in resource.ListFields() if not _is_set_by_service(each)}
        _refuse(field, names - set(changeable), can)
    if not names:
        raise InvalidRequest.of("update_mask", f"nothing is to be changed; {can}")
    return {name: getattr(resource, name) for name in names}


def _refuse(where: str, names: set[str], can: str) -> None:
    if names:
        raise InvalidRequest(
            [Problem(where, f"{name[:80]} cannot be changed; {can}") for name in sorted(names)]
        )


def _is_set_by_service(field: FieldDescriptor) -> bool:
    extensions: Any = field.GetOptions().Extensions
    return bool(_SET_BY_SERVICE & set(extensions[field_behavior_pb2.field_behavior]))
