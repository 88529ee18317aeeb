"""From a bearer token to the caller it stands for, without a look into the database at each call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from dropnorm_service.jobs.errors import StoreUnavailable, Unauthenticated
from dropnorm_service.jobs.ports import Clock
from dropnorm_service.jobs.tokens import Token, TokenStore, belongs, token_id_of

_FRESH = 0.8
_LONGEST = 2.0
_SHORTEST = 0.1


class Authenticator:
    """Knows the valid tokens as they were at most two seconds ago.

    The tokens are read again when somebody asks and they are not fresh. One that is not among them may have been made a
    moment ago: it is looked up by its id alone, together with all that are asked for meanwhile, at most ten times a
    second. So those who try tokens cost little, however many valid ones there are.

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
        self._wanted: set[str] | None = None
        self._looked_at = float("-inf")
        self._looking: asyncio.Task[None] | None = None
        # One asks the store at a time, so that what was read later is newer.
        self._asking = asyncio.Lock()

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
        # An id that is known is looked up too, lest the time that it takes tells of it.
        if token is None and (token_id := token_id_of(bearer)) is not None:
            await asyncio.shield(self._look_up(token_id))
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
        if tasks := {task for task in (self._reading, self._looking) if task is not None}:
            await asyncio.wait(tasks)

    def _find(self, bearer: str) -> Token | None:
        token = self._tokens.get(token_id_of(bearer) or "")
        return token if belongs(bearer, token) and self._valid(token) else None

    def _valid(self, token: Token | None) -> bool:
        return token is not None and token.valid(self._clock())

    def _look_up(self, token_id: str) -> asyncio.Task[None]:
        """The next look at single tokens, which this one is among."""
        if self._wanted is None or self._looking is None:
            self._wanted = set()
            self._looking = asyncio.create_task(self._look(self._wanted), name="single tokens")
            self._looking.add_done_callback(_retrieve)
        self._wanted.add(token_id)
        return self._looking

    async def _look(self, wanted: set[str]) -> None:
        await asyncio.sleep(max(0.0, self._looked_at + _SHORTEST - time.monotonic()))
        async with self._asking:
            self._wanted = None  # who comes from now on is for the next look
            self._looked_at = time.monotonic()
            with _told_to_strangers():
                found = await self._store.find(wanted, self._clock())
            if found:
                self._tokens = {**self._tokens, **{token.id: token for token in found}}

    def _read(self) -> asyncio.Task[None]:
        """The reading that is under way, or a new one; all who wait share it."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._load(), name="tokens")
            self._reading.add_done_callback(_retrieve)
        return self._reading

    async def _load(self) -> None:
        async with self._asking:
            began = time.monotonic()
            with _told_to_strangers():
                tokens = await self._store.valid(self._clock())
            self._tokens = {token.id: token for token in tokens}
            self._read_at = began


@contextmanager
def _told_to_strangers() -> Iterator[None]:
    """What a database says is not for them."""
    try:
        yield
    except StoreUnavailable as error:
        raise StoreUnavailable(
            "Tokens cannot be checked now, since the store does not answer; try again."
        ) from error


def _retrieve(reading: asyncio.Task[None]) -> None:
    """Nobody may wait for a reading that fails; who asks next meets the failure too."""
    if not reading.cancelled():
        reading.exception()
