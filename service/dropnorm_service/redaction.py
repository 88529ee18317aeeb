"""Secrets taken out of texts for people: passwords in URLs, and tokens."""

from __future__ import annotations

import re
from collections.abc import Iterable

# A password may hold any of `/ @ ' "`, and a space where no port was meant: `://host:80 is busy, ask a@b` names none.
# No longer than a password is: a caller's text may have thousands of places where one could begin.
_IN_URL = re.compile(r"""(://[^/\s:@]{0,250}):(?:\S{0,500}|(?!\d+\s)[^/@"\s][^/@"\n]{0,500})@""")
# As `sslpassword` and `odbc_connect`, whose value is a connection string of its own.
_IN_QUERY = re.compile(
    r"""([?&;][^?&;=\s]*(?:password|passwd|pwd|token|secret|odbc_connect)=)[^&\s"]+""",
    re.IGNORECASE,
)
_TOKEN = re.compile(r"\b(dn_[0-9a-f]{12})_[A-Za-z0-9_-]+")


def redact(text: str) -> str:
    """The text with `***` in place of each secret; of a token its id stays."""
    text = _IN_URL.sub(r"\1:***@", text)
    text = _IN_QUERY.sub(r"\1***", text)
    return _TOKEN.sub(r"\1_***", text)


def hold_secrets(texts: Iterable[str]) -> bool:
    """Whether there is a secret in any of the texts."""
    return any(redact(text) != text for text in texts)
