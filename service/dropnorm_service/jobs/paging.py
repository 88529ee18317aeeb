"""Pages of a list: how many, in which order (AIP-132), and from where on (AIP-158)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from dropnorm_service.jobs.errors import InvalidListRequest
from dropnorm_service.jobs.ports import JobQuery

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000
_MAX_TOKEN = 4096
_MAX_ORDER = 1000

ORDER_FIELDS = (
    "name",
    "display_name",
    "experiment",
    "priority",
    "create_time",
    "update_time",
    "end_time",
)

Key = str | int
"""What a store sorts by: text, or a number (of a time, in whatever unit the store has)."""


@dataclass(frozen=True)
class Order:
    """One field to sort by."""

    field: str
    descending: bool = False


def page_size(asked: int) -> int:
    """Things on a page, of how many were asked for; 0: as many as is usual.

    Raises:
        InvalidListRequest: the size asked for is negative.
    """
    if asked < 0:
        raise InvalidListRequest.of("page_size", f"must be 0 or more, not {asked}")
    return min(asked, MAX_PAGE_SIZE) or DEFAULT_PAGE_SIZE


def parse_order(text: str) -> tuple[Order, ...]:
    """The fields to sort by, the newest first when none is given.

    The last one is always the name, so that no two jobs are equal.

    Raises:
        InvalidListRequest: the order cannot be understood.
    """
    if len(text) > _MAX_ORDER:
        raise InvalidListRequest.of(
            "order_by", f"give at most {_MAX_ORDER} characters, not {len(text)}"
        )
    orders = [_parse_one(part) for part in text.split(",")] if text.strip() else []
    orders = orders or [Order("create_time", descending=True)]
    fields = [order.field for order in orders]
    twice = next((field for field in fields if fields.count(field) > 1), None)
    if twice is not None:
        raise InvalidListRequest.of("order_by", f"{twice} stands there twice")
    if "name" not in fields:
        orders.append(Order("name", descending=orders[-1].descending))
    return tuple(orders)


def _parse_one(text: str) -> Order:
    match text.split():
        case [field] | [field, "asc"] if field in ORDER_FIELDS:
            return Order(field)
        case [field, "desc"] if field in ORDER_FIELDS:
            return Order(field, descending=True)
        case _:
            raise InvalidListRequest.of(
                "order_by",
                f"cannot sort by {text.strip()[:80]!r}; write fields separated by commas, each "
                f"with or without desc: {', '.join(ORDER_FIELDS)}",
            )


def page_token(query: JobQuery, keys: Sequence[Key]) -> str:
    """The token of the page after the job with these sort keys."""
    text = json.dumps([_digest(query), *keys], separators=(",", ":"), ensure_ascii=False)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_token(query: JobQuery, kinds: Sequence[type[Key]]) -> tuple[Key, ...] | None:
    """The sort keys in the query's token; None without one.

    Raises:
        InvalidListRequest: the token is none of ours, or belongs to another filter or order.
    """
    if not query.page_token:
        return None
    try:
        token = query.page_token[:_MAX_TOKEN]
        padding = "=" * (-len(token) % 4)
        digest, *keys = json.loads(base64.b64decode(token + padding, b"-_", validate=True))
    except (binascii.Error, ValueError, TypeError, RecursionError):  # lists in lists in lists
        digest, keys = None, []
    if digest is not None and digest != _digest(query):
        raise InvalidListRequest.of(
            "page_token", "belongs to another filter or order_by; repeat those of the page before"
        )
    if digest is None or not _fit(keys, kinds):
        raise InvalidListRequest.of(
            "page_token", "is not one of ours; pass next_page_token on as it came"
        )
    return tuple(keys)


def _fit(keys: Sequence[object], kinds: Sequence[type[Key]]) -> bool:
    return len(keys) == len(kinds) and all(
        type(key) is kind and _is_storable(key) for key, kind in zip(keys, kinds, strict=True)
    )


def _is_storable(key: object) -> bool:
    """Whether every database could compare it with what it holds."""
    if isinstance(key, str):
        return re.search("[\x00\ud800-\udfff]", key) is None
    return isinstance(key, int) and -(2**63) <= key < 2**63


def _digest(query: JobQuery) -> str:
    content = f"{query.filter}\n{query.order_by}"
    return hashlib.sha256(content.encode()).hexdigest()[:16]
