"""Secrets taken out of texts for people: passwords in URLs, and tokens."""

from __future__ import annotations

import re
from collections.abc import Iterable

_IN_URL = re.compile(r"""(://[^/\s:@"']*):[^\s"']*@""")
_IN_QUERY = re.compile(r"""([?&](?:password|passwd|pwd|token|secret)=)[^&\s"']+""", re.IGNORECASE)
_TOKEN = re.compile(r"\b(dn_[0-9a-f]{12})_[A-Za-z0-9_-]+")


def redact(text: str) -> str:
    """The text with `***` in place of each secret; of a token its id stays."""
    text = _IN_URL.sub(r"\1:***@", text)
    text = _IN_QUERY.sub(r"\1***", text)
    return _TOKEN.sub(r"\1_***", text)


def hold_secrets(texts: Iterable[str]) -> bool:
    """Whether there is a secret in any of the texts."""
    return any(redact(text) != text for text in texts)
