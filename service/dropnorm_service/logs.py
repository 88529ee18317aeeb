"""Structured logs on standard error: one JSON object a line, or text for people."""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime
from io import TextIOWrapper
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any

from dropnorm_service import audit
from dropnorm_service.api.context import request_id
from dropnorm_service.redaction import redact
from dropnorm_service.settings import Settings, SettingsError

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def configure(settings: Settings) -> None:
    """Send the records of this process to standard error in the form the settings ask for, audits to their file too.

    Raises:
        SettingsError: the file for audits cannot be written.
    """
    audits = logging.getLogger(audit.LOGGER)
    audits.setLevel(logging.INFO)  # whatever the level of the others
    audits.handlers[:] = [_audit_file(settings.audit_log)] if settings.audit_log else []
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if settings.log_format == "json" else _Text())
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    for chatty in ("alembic", "aiosqlite", "asyncio", "sqlalchemy"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _audit_file(path: Path) -> logging.Handler:
    try:
        handler = _AppendOnly(path, encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"audit_log: {path} cannot be written: {error.strerror}") from error
    handler.setFormatter(_Json())
    return handler


class _AppendOnly(WatchedFileHandler):
    """A file that others may move away, read by its owner alone; several processes may append to it."""

    def _open(self) -> TextIOWrapper:
        return open(self.baseFilename, "a", encoding=self.encoding, opener=_for_owner)


def _for_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """What the call site gave as `extra`, and the request id of the call being served."""
    fields = {key: value for key, value in record.__dict__.items() if key not in _STANDARD}
    if identity := request_id.get():
        fields["request_id"] = identity
    return fields


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            entry["trace"] = self.formatException(record.exc_info)
        return redact(json.dumps(entry, default=str, ensure_ascii=False))


class _Text(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{key}={value}" for key, value in _fields(record).items())
        # One record is one line: a name with a line break in it cannot forge another record.
        line = f"{super().formatMessage(record)} {fields}".rstrip().replace("\n", "\\n")
        return redact(line)

    def formatException(self, exc_info: Any) -> str:
        return redact(super().formatException(exc_info))
