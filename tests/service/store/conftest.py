"""Every database that the store's contract is tested on."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dropnorm_service.store import SqlJobStore


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/jobs.db"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
async def store(url: str) -> AsyncIterator[SqlJobStore]:
    async with await SqlJobStore.open(url) as store:
        yield store
