"""From a bearer token to the caller it stands for, without a look into the database at each call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from dropnorm_service.jobs.errors import StoreUnavailable, Unauthenticated
from dropnorm_service.jobs.ports import Clock
from dropnorm_service.jobs.tokens import Token, TokenStore, belongs, token_id_of

_FRESH = 0.8
_LONGEST = 2.0
_SHORTEST = 0.1


class Authenticator:
    """Knows the valid tokens as they were at most two seconds ago.

    The tokens are read again when somebody asks and they are not fresh, and, at most ten times a second, for a
    token that is not among them, which may have been made a moment ago.

    Args:
        store: where the tokens are.
        clock: the time.
    """

    def __init__(self, store: TokenStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._tokens: Mapping[str, Token] = {}
        self._read_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    async def identify(self, bearer: str) -> Token:
        """The token of a text.

        Raises:
            Unauthenticated: it is none, or not valid.
            StoreUnavailable: nobody can say now.
        """
        if time.monotonic() - self._read_at > _FRESH:
            reading = self._read()
            if time.monotonic() - self._read_at > _LONGEST:
                await asyncio.shield(reading)
        token = self._find(bearer)
        if token is None and token_id_of(bearer) is not None:
            await self._read_since(time.monotonic())
            token = self._find(bearer)
        if token is None:
            raise Unauthenticated
        return token

    async def refresh(self) -> None:
        """Read the tokens again, unless they are fresh.

        Raises:
            StoreUnavailable: they cannot be read.
        """
        if time.monotonic() - self._read_at > _FRESH:
            await asyncio.shield(self._read())

    def knows(self, token: Token) -> bool:
        """Whether a token that was identified before was still valid when the tokens were read last."""
        return self._valid(self._tokens.get(token.id))

    @property
    def age(self) -> float:
        """Seconds since the tokens were read."""
        return time.monotonic() - self._read_at

    async def close(self) -> None:
        """Finish what is being read."""
        if self._reading is not None:
            await asyncio.wait({self._reading})

    def _find(self, bearer: str) -> Token | None:
        token = self._tokens.get(token_id_of(bearer) or "")
        return token if belongs(bearer, token) and self._valid(token) else None

    def _valid(self, token: Token | None) -> bool:
        return token is not None and token.valid(self._clock())

    async def _read_since(self, moment: float) -> None:
        """Wait for tokens that were read after a moment."""
        while self._read_at < moment:
            await asyncio.sleep(max(0.0, self._read_at + _SHORTEST - time.monotonic()))
            await asyncio.shield(self._read())

    def _read(self) -> asyncio.Task[None]:
        """The reading that is under way, or a new one; all who wait share it."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._load(), name="tokens")
            self._reading.add_done_callback(_retrieve)
        return self._reading

    async def _load(self) -> None:
        began = time.monotonic()
        try:
            tokens = await self._store.valid(self._clock())
        except StoreUnavailable as error:  # what a database says is not for strangers
            raise StoreUnavailable(
                "Tokens cannot be checked now, since the store does not answer; try again."
            ) from error
        self._tokens = {token.id: token for token in tokens}
        self._read_at = began


def _retrieve(reading: asyncio.Task[None]) -> None:
    """Nobody may wait for a reading that fails; who asks next meets the failure too."""
    if not reading.cancelled():
        reading.exception()
