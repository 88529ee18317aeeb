"""Structured logs on standard error: one JSON object a line, or text for people.

Each record says `time`, `level`, `logger` and `message`, and where they are known `request_id` and `user` of the call
that is served, `job` and `attempt` that it is for, `trace` of an exception, and what the call site adds. One record is
one line whatever stands in it: in a name of a job as in what a library printed.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dropnorm_service import audit
from dropnorm_service.api.context import caller, request_id
from dropnorm_service.audit_file import AuditFile
from dropnorm_service.log_context import fields_of
from dropnorm_service.redaction import redact
from dropnorm_service.settings import Settings, SettingsError

# Control characters, what Unicode counts as line breaks, what changes the direction of the text around it, and halves
# of surrogate pairs, which no encoding can write.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


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
    logging.captureWarnings(True)
    for chatty in ("alembic", "aiosqlite", "asyncio", "sqlalchemy"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.getLogger("grpc._cython.cygrpc").addFilter(_of_no_strangers_header)


def _of_no_strangers_header(record: logging.LogRecord) -> bool:
    """gRPC records each header that is not UTF-8, whole and with a trace, and goes on: by it strangers fill disks."""
    return record.exc_info is None or record.exc_info[0] is not UnicodeDecodeError


def audits_lost() -> int:
    """How many records the file for audits did not take."""
    handlers = logging.getLogger(audit.LOGGER).handlers
    return sum(each.lost for each in handlers if isinstance(each, AuditFile))


def _audit_file(path: Path) -> logging.Handler:
    try:
        handler = AuditFile(path)
    except OSError as error:
        raise SettingsError(f"audit_log: {path} cannot be written: {error.strerror}") from error
    handler.setFormatter(_Json())
    return handler


def escaped(text: str) -> str:
    """The text on one line: what is unsafe is written as in JSON, `\\u000a` for a line break."""
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields: dict[str, object] = {}
    if identity := request_id.get():
        fields["request_id"] = identity
    if (who := caller.get(None)) is not None:
        fields["user"] = who.user
    return fields | fields_of(record)


def _redacted(value: object) -> object:
    """The value as JSON can say it, its texts without secrets."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {redact(str(key)): _redacted(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(item) for item in value]
    return redact(str(value))


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        standard = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry = standard | _fields(record) | standard
        if record.exc_info:
            entry["trace"] = self.formatException(record.exc_info)
        # Within JSON's strings alone can there be anything to escape. A secret is taken out of them before there are
        # quotes around them, which would go with it.
        return escaped(json.dumps(_redacted(entry), ensure_ascii=False))


class _Text(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{key}={value}" for key, value in _fields(record).items())
        return escaped(redact(f"{super().formatMessage(record)} {fields}".rstrip()))

    def formatException(self, exc_info: Any) -> str:
        """The trace, on lines that no record begins like."""
        lines = redact(super().formatException(exc_info)).splitlines()
        return "\n".join(f"  | {escaped(line)}" for line in lines)
