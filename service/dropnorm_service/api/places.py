"""How many calls there may be at once, and how many of them may be on their way in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from weakref import WeakValueDictionary

from dropnorm_service.jobs.callers import Caller
from dropnorm_service.jobs.errors import LimitReached
from dropnorm_service.jobs.limits import Places, subject_of

_PAUSE = 1.0
_SENDING_PAUSE = 5.0  # as that of uploads


@dataclass(frozen=True, kw_only=True)
class CallLimits:
    """Limits of the calls that are served at once.

    Attributes:
        calls: of all users together.
        user_calls: of one user.
        user_sending: those of one user in which messages are sent one after the other: uploads and reflection.
    """

    calls: int = 10_000
    user_calls: int = 2_000
    user_sending: int = 16


class CallPlaces:
    """The places of calls whose callers are known.

    Args:
        limits: how many there are.
    """

    def __init__(self, limits: CallLimits) -> None:
        self._calls = Places(
            "max_calls",
            limits.calls,
            "{limit} calls are being served, as many as the service takes at once; try again in a moment.",
            retry_after=_PAUSE,
        )
        self._of_users = Places(
            "max_calls_per_user",
            limits.user_calls,
            "{limit} of your calls are being served, as many as a user's may be; end some of those streams, or wait.",
            retry_after=_PAUSE,
        )
        self._sending = Places(
            "max_uploads_per_user",
            limits.user_sending,
            "{limit} of your uploads and reflection streams are open, as many as a user's may be; "
            "wait until one has ended.",
            retry_after=_SENDING_PAUSE,
        )

    @contextmanager
    def serving(self, caller: Caller, *, sending: bool) -> Iterator[None]:
        """Serve a call within the block.

        Args:
            caller: whose it is.
            sending: whether he sends messages one after the other.

        Raises:
            LimitReached: as many of his, or of all, are served as may be.
        """
        subject = subject_of(caller)
        with self._of_users.taken(subject), self._calls.taken("service"):
            if sending:
                with self._sending.taken(subject):
                    yield
            else:
                yield


class Lines:
    """Where messages of known callers stand in line until they are let in.

    gRPC takes in all of a message once somebody waits for it, whatever its method does with it then. So only some are
    waited for at once; of the others it takes a first part of 64 KiB.

    Args:
        each: of one user.
        everybody: of all users together.
    """

    def __init__(self, each: int = 8, everybody: int = 64) -> None:
        self._each = each
        self._everybody = asyncio.Semaphore(everybody)
        self._own: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def passed(self, caller: Caller) -> AsyncIterator[None]:
        """Take a message in within the block, when it is the caller's turn."""
        own = self._own.get(caller.user)
        if own is None:
            own = self._own[caller.user] = asyncio.Semaphore(self._each)
        async with own, self._everybody:
            yield


class Doorstep:
    """Where callers whom nobody knows are heard and answered.

    When there are as many as may be, the next one takes the place of who stood there longest: health is asked for in
    one breath, and who says nothing, or does not listen, keeps nobody out.

    Args:
        most: at once.
        seconds: that one may stay.
    """

    def __init__(self, most: int = 16, seconds: float = 5.0) -> None:
        self._most = most
        self._seconds = seconds
        self._there: dict[asyncio.Timeout, None] = {}

    @asynccontextmanager
    async def stepped_on(self) -> AsyncIterator[None]:
        """Hear and answer a caller within the block.

        Raises:
            LimitReached: he took too long.
        """
        if len(self._there) >= self._most:
            oldest = next(iter(self._there))
            del self._there[oldest]
            if not oldest.expired():
                oldest.reschedule(0.0)
        try:
            async with asyncio.timeout(self._seconds) as stay:
                self._there[stay] = None
                try:
                    yield
                finally:
                    self._there.pop(stay, None)
        except TimeoutError:
            if not stay.expired():  # it is the call's own
                raise
            raise LimitReached(
                f"The service hears {self._most} callers without a token at once, and this call took too long; "
                "try again.",
                setting="callers_without_token",
                limit=self._most,
                subject="service",
                retry_after=_PAUSE,
            ) from None
