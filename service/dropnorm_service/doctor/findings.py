"""What the doctor finds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    check: str
    """What was looked at, one or two words."""
    status: Literal["ok", "warning", "failure"]
    """A failure keeps the service from doing its work; a warning is worth a thought."""
    text: str
    """What was found, one sentence."""
    do: str = ""
    """What to do about it, one sentence; empty when all is well."""

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self), ensure_ascii=True)


Findings = Iterator[Finding]


def ok(check: str, text: str) -> Finding:
    """All is well."""
    return Finding(check, "ok", text)


def warning(check: str, text: str, do: str) -> Finding:
    """Worth a thought."""
    return Finding(check, "warning", text, do)


def failure(check: str, text: str, do: str) -> Finding:
    """The service cannot do its work so."""
    return Finding(check, "failure", text, do)
