"""The contract of `TokenStore`, on every database: a server reads, and `dropnorm tokens` writes beside it."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from dropnorm_service.jobs.authentication import Authenticator
from dropnorm_service.jobs.callers import Caller, Role
from dropnorm_service.jobs.errors import InvalidRequest, Unauthenticated
from dropnorm_service.jobs.tokens import MAX_TOKENS, Token, Tokens, TokenStore
from dropnorm_service.store import SqlJobStore

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


class Clock:
    """The time, which a test moves."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


class Counting:
    """A store's tokens, and how often they are asked for."""

    def __init__(self, store: TokenStore) -> None:
        self._store = store
        self.reads = 0
        """Of all."""
        self.looks = 0
        """At single ones."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def valid(self, now: datetime) -> Sequence[Token]:
        self.reads += 1
        return await self._store.valid(now)

    async def find(self, token_ids: Iterable[str], now: datetime) -> Sequence[Token]:
        self.looks += 1
        return await self._store.find(token_ids, now)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def tokens(store: SqlJobStore, url: str, clock: Clock) -> AsyncIterator[Tokens]:
    """The tokens of `store`, as another process has them."""
    async with await SqlJobStore.open(url, beside=True) as other:
        yield Tokens(other.tokens, clock)


async def test_what_one_process_writes_the_other_reads(
    store: SqlJobStore, tokens: Tokens, clock: Clock
):
    made, bearer = await tokens.create("ada", Role.USER, DAY)
    authenticator = Authenticator(store.tokens, clock)

    assert await store.tokens.all() == [made]
    found = await authenticator.identify(bearer)
    assert (found, found.caller) == (made, Caller("ada", Role.USER))
    assert bearer not in repr(found)

    revoked = await tokens.revoke(made.id)
    assert await store.tokens.all() == [revoked]
    assert await store.tokens.valid(clock()) == []
    with pytest.raises(Unauthenticated):
        await Authenticator(store.tokens, clock).identify(bearer)
    clock.now += DAY
    assert (await tokens.revoke(made.id)).revoke_time == NOW  # again: without effect


async def test_who_tries_tokens_makes_nobody_read_all_of_them(
    store: SqlJobStore, tokens: Tokens, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("dropnorm_service.jobs.authentication._FRESH", 1e9)
    _, known = await tokens.create("ada", Role.USER, DAY)
    counting = Counting(store.tokens)
    authenticator = Authenticator(cast(TokenStore, counting), clock)
    await authenticator.identify(known)

    _, made = await tokens.create("bob", Role.USER, DAY)
    tried = [f"dn_{number:012x}_{'x' * 43}" for number in range(600)]
    answers = await asyncio.gather(
        *map(authenticator.identify, [*tried, made]), return_exceptions=True
    )
    assert all(isinstance(answer, Unauthenticated) for answer in answers[:-1])
    assert isinstance(answers[-1], Token)
    assert answers[-1].caller.user == "bob"
    assert (counting.reads, counting.looks) == (1, 1)
    with pytest.raises(Unauthenticated):
        await authenticator.identify(f"{known[:-4]}AAAA")
    assert (counting.reads, counting.looks) == (1, 2), "an id that is known takes as long"


async def test_a_token_that_was_looked_up_is_known_until_it_is_revoked(
    store: SqlJobStore, tokens: Tokens, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    authenticator = Authenticator(store.tokens, clock)
    await authenticator.refresh()
    monkeypatch.setattr("dropnorm_service.jobs.authentication._FRESH", 1e9)
    made, bearer = await tokens.create("ada", Role.USER, DAY)
    assert await authenticator.identify(bearer) == made
    assert authenticator.knows(made)

    await tokens.revoke(made.id)
    monkeypatch.setattr("dropnorm_service.jobs.authentication._FRESH", 0.0)
    await authenticator.refresh()
    assert not authenticator.knows(made)


async def test_a_token_expires_at_its_time_without_another_look(
    store: SqlJobStore, tokens: Tokens, clock: Clock
):
    made, bearer = await tokens.create("ada", Role.USER, DAY)
    authenticator = Authenticator(store.tokens, clock)
    clock.now += DAY - timedelta(microseconds=1)
    assert await authenticator.identify(bearer) == made
    assert authenticator.knows(made)
    clock.now += timedelta(microseconds=1)

    assert not authenticator.knows(made)
    with pytest.raises(Unauthenticated):
        await authenticator.identify(bearer)


async def test_one_that_never_expires_stays(tokens: Tokens, clock: Clock):
    made, _ = await tokens.create("ada", Role.VIEWER, None)
    clock.now += 10_000 * DAY
    other, _ = await tokens.create("bob", Role.ADMIN, DAY)

    assert [token.id for token in await tokens.list()] == [made.id, other.id]
    assert made.valid(clock())


@pytest.mark.parametrize("user", ["", "a b", "a\nb", "../x", "x" * 65, "ä"])
async def test_a_user_is_a_plain_name(tokens: Tokens, user: str):
    with pytest.raises(InvalidRequest, match="user: a user is"):
        await tokens.create(user, Role.USER, DAY)


async def test_there_are_not_more_than_fit_into_memory(
    tokens: Tokens, monkeypatch: pytest.MonkeyPatch
):
    assert MAX_TOKENS == 10_000
    monkeypatch.setattr("dropnorm_service.jobs.tokens.MAX_TOKENS", 1)
    await tokens.create("ada", Role.USER, DAY)
    with pytest.raises(InvalidRequest, match="revoke some"):
        await tokens.create("ada", Role.USER, DAY)


async def test_a_token_that_is_not_there_cannot_be_revoked(tokens: Tokens):
    with pytest.raises(InvalidRequest, match="there is no token 012301230123"):
        await tokens.revoke("012301230123")
    with pytest.raises(InvalidRequest, match="that is no token's id") as raised:
        await tokens.revoke("part-of-a-secret")
    assert "secret" not in str(raised.value), "it may be one"
