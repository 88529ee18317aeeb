"""Asks each call whom it comes from, and ends those under way whose token is valid no more."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from dropnorm_service.api.authorization import Rule, rule_of
from dropnorm_service.jobs.authentication import Authenticator
from dropnorm_service.jobs.callers import LOCAL, Caller
from dropnorm_service.jobs.errors import StoreUnavailable, Unauthenticated
from dropnorm_service.jobs.tokens import Token

HEADER = "authorization"

_SCHEME = "bearer "
_INTERVAL = 1.0
_LONGEST_SILENCE = 15.0
_FRESH = 2.0  # seconds for which what is known of tokens is good enough to let somebody in

Metadata = Iterable[tuple[str, str | bytes]]


@dataclass(frozen=True, kw_only=True)
class Visitor:
    """Who stands before a method."""

    method: str
    rule: Rule | None = None
    """None: the method has none, and is refused."""
    caller: Caller | None = None
    """None: nobody knows, and nobody need know, or the call is refused."""
    token: Token | None = None
    """What the caller was known by; None: nobody was asked for one."""
    refusal: Exception | None = None
    """Why the call is not let in, whatever it asks for."""

    @property
    def stranger(self) -> bool:
        """Whether nobody knows who calls, and nobody need know."""
        return self.caller is None and self.refusal is None


class Guard:
    """Knows the callers, and which calls are theirs.

    Args:
        authenticator: knows the tokens; None: everybody is the local caller.
    """

    def __init__(self, authenticator: Authenticator | None = None) -> None:
        self._authenticator = authenticator
        self._leashes: dict[asyncio.Timeout, Token] = {}

    async def visitor(self, method: str, metadata: Metadata) -> Visitor:
        """Who calls a method, with which right."""
        rule = None
        try:
            rule = rule_of(method)
            if rule.role is None:
                return Visitor(method=method, rule=rule)
            if self._authenticator is None:
                return Visitor(method=method, rule=rule, caller=LOCAL)
            token = await self._authenticator.identify(_bearer(metadata))
        except Exception as error:  # the error catalogue says what becomes of it
            return Visitor(method=method, rule=rule, refusal=error)
        return Visitor(method=method, rule=rule, caller=token.caller, token=token)

    async def confirm(self, visitor: Visitor) -> None:
        """Ask again, when what a call brings is there: that may be long after it was let in.

        Raises:
            Unauthenticated: its token is not valid any more.
            StoreUnavailable: nobody can say now.
        """
        if self._authenticator is None or visitor.token is None:
            return
        if self._authenticator.age > _FRESH:
            await self._authenticator.refresh()
        if not self._authenticator.knows(visitor.token):
            raise Unauthenticated

    @asynccontextmanager
    async def leash(self, visitor: Visitor) -> AsyncIterator[None]:
        """Let a call go on for as long as its token is valid.

        What it has begun to write is finished, as after a deadline of its caller's.

        Raises:
            Unauthenticated: it is not any more.
            StoreUnavailable: for too long nobody can say.
        """
        if visitor.token is None:
            yield
            return
        try:
            async with asyncio.timeout(None) as leash:
                self._leashes[leash] = visitor.token
                try:
                    yield
                finally:
                    del self._leashes[leash]
        except TimeoutError:
            if not leash.expired():  # it is the call's own
                raise
            raise self._cut(visitor.token) from None

    async def run(self) -> None:
        """Look after the calls until cancelled."""
        if self._authenticator is None:
            return
        while True:
            await asyncio.sleep(_INTERVAL)
            if not self._leashes:
                continue
            with contextlib.suppress(StoreUnavailable):
                await self._authenticator.refresh()
            for leash, token in list(self._leashes.items()):
                if not self._holds(token) and not leash.expired():
                    leash.reschedule(0.0)

    def _holds(self, token: Token) -> bool:
        assert self._authenticator is not None
        return self._authenticator.knows(token) and self._authenticator.age < _LONGEST_SILENCE

    def _cut(self, token: Token) -> StoreUnavailable | Unauthenticated:
        assert self._authenticator is not None
        if self._authenticator.knows(token):
            return StoreUnavailable(
                "The call is ended, since for too long the store could not say whether its token is still valid."
            )
        return Unauthenticated()


def _bearer(metadata: Metadata) -> str:
    """The token that a call brings; empty: none, or several."""
    values = [value for key, value in metadata if key == HEADER]
    if len(values) != 1 or not isinstance(values[0], str):
        return ""
    return values[0][len(_SCHEME) :] if values[0].lower().startswith(_SCHEME) else ""
