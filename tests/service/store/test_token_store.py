"""The contract of `TokenStore`, on every database: a server reads, and `dropnorm tokens` writes beside it."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from dropnorm_service.jobs.authentication import Authenticator
from dropnorm_service.jobs.callers import Caller, Role
from dropnorm_service.jobs.errors import InvalidRequest, Unauthenticated
from dropnorm_service.jobs.tokens import MAX_TOKENS, Tokens
from dropnorm_service.store import SqlJobStore

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


class Clock:
    """The time, which a test moves."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


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
