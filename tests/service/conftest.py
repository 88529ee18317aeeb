"""What holds for every test of the service."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def logging_is_put_back() -> Iterator[None]:
    """A test may configure logging as a process of its own would, and the next one finds it as it was."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    logging.captureWarnings(False)
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.fixture
def garbage_stays() -> Iterator[None]:
    """What tests before this one left, as a task that nobody waited for, complains in no log that this one reads."""
    gc.disable()
    yield
    gc.enable()
