"""The MLflow store that the mirror makes for itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.e2e.servers import eventually

from dropnorm_service.tracking import TrackingConfig
from dropnorm_service.tracking.mirror.store import open_store

_PAGE = 4096  # bytes of a page of SQLite; the whole database has some 150
_OPEN = """
import sys
from pathlib import Path
from dropnorm_service.tracking import TrackingConfig
from dropnorm_service.tracking.mirror.store import open_store

config = TrackingConfig.resolve(Path(sys.argv[1]))
open_store(config.tracking_uri, config.artifact_root, config.store_lock)
"""


@pytest.mark.parametrize("pages", [40, 90, 120])
def test_a_kill_while_its_tables_are_made_leaves_nothing_that_is_in_the_way(
    tmp_path: Path, pages: int
):
    def begun() -> bool:
        return any(_size(file) >= pages * _PAGE for file in tmp_path.glob("*mlflow.db*"))

    with subprocess.Popen([sys.executable, "-c", _OPEN, str(tmp_path)]) as opening:
        try:
            eventually(begun, "half of it")
        finally:
            opening.kill()

    config = TrackingConfig.resolve(tmp_path)
    client = open_store(config.tracking_uri, config.artifact_root, config.store_lock)
    assert [each.name for each in client.search_experiments()] == ["Default"]
    assert sorted(file.name for file in tmp_path.glob(".*")) == []


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:  # SQLite's journal comes and goes
        return 0
