"""What tests counted and measured, shown when all is over; also by the workers of pytest-xdist."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from typing import Any

import pytest

Figures = Callable[[str, str], None]
"""Takes a heading and a line to show under it."""

_Lines = list[tuple[str, str]]
_LINES = pytest.StashKey[_Lines]()


@pytest.fixture(scope="session")
def figures(pytestconfig: pytest.Config) -> Figures:
    """Remembers a line."""
    lines = _lines(pytestconfig)
    return lambda heading, line: lines.append((heading, line))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker sends its lines along with its last message."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["figures"] = _lines(session.config)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker has ended; one that broke off has no last message."""
    _lines(node.config).extend(getattr(node, "workeroutput", {}).get("figures", ()))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Show the lines."""
    by_heading = sorted(_lines(config), key=lambda each: each[0])
    for heading, lines in groupby(by_heading, key=lambda each: each[0]):
        terminalreporter.section(heading)
        for _, line in lines:
            terminalreporter.write_line(line)


def _lines(config: pytest.Config) -> _Lines:
    return config.stash.setdefault(_LINES, [])
