"""What a driver says of its connection is not the service's own error."""

import asyncpg
import pytest

from dropnorm_service.jobs.errors import StoreUnavailable
from dropnorm_service.store.errors import translated


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.InternalClientError("got result for unknown protocol state 3"),
        ConnectionResetError("reset"),
        TimeoutError(),
    ],
)
def test_a_broken_connection_makes_the_store_unavailable(error: Exception):
    with pytest.raises(StoreUnavailable), translated():
        raise error
