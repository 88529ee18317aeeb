"""A folder of data sets, and the file of one."""

from pathlib import Path

import pytest
from tests.service.datasets.folders import Folder
from tests.service.datasets.test_dataset_service import file_of


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "uploads")


@pytest.fixture
def data(tmp_path: Path) -> bytes:
    return file_of(tmp_path / "file")
