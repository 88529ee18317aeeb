"""What every log record of a piece of work says besides its message: which job and attempt it is for."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

_fields: ContextVar[Mapping[str, object]] = ContextVar("log_fields", default=MappingProxyType({}))

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


@contextmanager
def bound(**fields: object) -> Iterator[None]:
    """Within it, records of this task or thread, and of tasks that it starts, carry these fields."""
    token = _fields.set({**_fields.get(), **fields})
    try:
        yield
    finally:
        _fields.reset(token)


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """The fields that are bound now, and over them what the call site gave as `extra`."""
    given = {key: value for key, value in record.__dict__.items() if key not in _STANDARD}
    return {**_fields.get(), **given}
