"""Bearer tokens: random, shown once, stored as hashes alone."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Protocol

from dropnorm.spec import Problem
from dropnorm_service.jobs.callers import Caller, Role
from dropnorm_service.jobs.errors import InvalidRequest
from dropnorm_service.jobs.ports import Clock

MAX_TOKENS = 10_000
"""Valid tokens at a time; servers hold them all in memory."""

_ID_BYTES = 6
_SECRET_BYTES = 32
_KEPT = timedelta(days=30)
_ID = re.compile(rf"[0-9a-f]{{{2 * _ID_BYTES}}}")
_FORM = re.compile(rf"dn_({_ID.pattern})_[A-Za-z0-9_-]{{43}}")
_USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class Token:
    """What is known of a token; not the token itself."""

    id: str
    """Public: it stands in lists and in the audit log."""
    caller: Caller
    """Whom it stands for."""
    digest: bytes = field(repr=False)
    """SHA-256 of the whole token."""
    create_time: datetime
    expire_time: datetime | None = None
    """None: it does not expire."""
    revoke_time: datetime | None = None

    def valid(self, now: datetime) -> bool:
        """Whether it lets anybody in."""
        return self.revoke_time is None and (self.expire_time is None or now < self.expire_time)


class TokenStore(Protocol):
    """Durable tokens. Several processes may use them. Every method may raise StoreUnavailable."""

    async def add(self, token: Token) -> None:
        """Write a new token."""

    async def all(self) -> Sequence[Token]:
        """Every token, the oldest first."""

    async def valid(self, now: datetime) -> Sequence[Token]:
        """Every token that lets somebody in."""

    async def find(self, token_ids: Iterable[str], now: datetime) -> Sequence[Token]:
        """Those of some tokens that let somebody in."""

    async def revoke(self, token_id: str, now: datetime) -> None:
        """Let a token be valid no more."""

    async def purge(self, ended_before: datetime) -> None:
        """Remove tokens that expired or were revoked before a time."""


class Tokens:
    """Makes tokens, lists and revokes them.

    Args:
        store: where they are.
        clock: the time.
    """

    def __init__(self, store: TokenStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def create(self, user: str, role: Role, lifetime: timedelta | None) -> tuple[Token, str]:
        """A new token, and its text, which nobody can be told again.

        Args:
            user: whom it stands for.
            role: what they may do.
            lifetime: after which it lets nobody in; None: it does not expire.

        Raises:
            InvalidRequest: the user is no name, or there are too many tokens.
        """
        if _USER.fullmatch(user) is None:
            text = (
                "a user is a letter or digit, then up to 63 letters, digits and characters of ._@+-"
            )
            raise InvalidRequest.of("user", text)
        now = self._clock()
        await self._store.purge(now - _KEPT)
        if len(await self._store.valid(now)) >= MAX_TOKENS:
            text = f"there are {MAX_TOKENS:,} valid tokens already; revoke some that nobody needs"
            raise InvalidRequest([Problem("", text)])
        token_id = secrets.token_hex(_ID_BYTES)
        bearer = f"dn_{token_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"
        token = Token(
            id=token_id,
            caller=Caller(user, role),
            digest=_digest(bearer),
            create_time=now,
            expire_time=None if lifetime is None else now + lifetime,
        )
        await self._store.add(token)
        return token, bearer

    async def list(self) -> Sequence[Token]:
        """Every token, the oldest first; those that ended are kept for a month."""
        return await self._store.all()

    async def revoke(self, token_id: str) -> Token:
        """Let a token be valid no more; without effect on one that is revoked already.

        Raises:
            InvalidRequest: there is no such token.
        """
        found = [token for token in await self._store.all() if token.id == token_id]
        if not found:
            named = id_named_by(token_id)
            what = f"there is no token {named}" if named else "that is no token's id"
            text = f"{what}; `dropnorm tokens list` shows them"
            raise InvalidRequest.of("id", text)
        [token] = found
        if token.revoke_time is not None:
            return token
        now = self._clock()
        await self._store.revoke(token_id, now)
        return replace(token, revoke_time=now)


def token_id_of(bearer: str) -> str | None:
    """The id in a token's text; None: it is none that was ever made."""
    match = _FORM.fullmatch(bearer)
    return match[1] if match else None


def id_named_by(text: str) -> str:
    """The id that somebody gives, perhaps by giving the whole token; empty: neither, and perhaps a part of a secret."""
    return text if _ID.fullmatch(text) else token_id_of(text) or ""


def belongs(bearer: str, token: Token | None) -> bool:
    """Whether a text is a token; it takes the same time whatever it is, and where there is no token too."""
    expected = bytes(hashlib.sha256().digest_size) if token is None else token.digest
    return hmac.compare_digest(_digest(bearer), expected) and token is not None


def _digest(bearer: str) -> bytes:
    return hashlib.sha256(bearer.encode()).digest()
