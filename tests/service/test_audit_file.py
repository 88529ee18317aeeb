"""The file of the audit log when it cannot be written: nothing fails for it, and what it has is lines of JSON."""

from __future__ import annotations

import json
import logging
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dropnorm_service import audit, logs
from dropnorm_service.settings import Settings

pytestmark = pytest.mark.usefixtures("garbage_stays")


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Where the file will be; nobody writes it any more after the test."""
    (tmp_path / "log").mkdir()
    yield tmp_path / "log" / "audit.jsonl"
    for handler in logging.getLogger(audit.LOGGER).handlers[:]:
        logging.getLogger(audit.LOGGER).removeHandler(handler)
        handler.close()


def configure(path: Path) -> None:
    logs.configure(Settings(log_format="json", audit_log=path))


def record(resource: str) -> None:
    audit.record("DeleteTrainingJob", resource, "OK", user="ada", token="", peer="")


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def resources(path: Path) -> list[str]:
    return [each["resource"] for each in records(path.read_text())]


@contextmanager
def full(path: Path, *, room: int) -> Iterator[None]:
    """As on a disk that has so many bytes left for a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_records_go_into_the_ordinary_log_while_the_file_cannot_be_opened(
    path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    configure(path)
    moved = path.parent.rename(path.parent.with_name("moved"))
    for name in ("one", "two", "three"):
        record(name)
    said = records(capfd.readouterr().err)
    assert [each["resource"] for each in said if each["logger"] == audit.LOGGER] == [
        "one",
        "two",
        "three",
    ]
    [complaint] = [each for each in said if each["logger"] != audit.LOGGER]
    assert (complaint["level"], complaint["path"], complaint["lost"]) == ("error", str(path), 1)
    assert "No such file" in complaint["error"]
    assert logs.audits_lost() == 3

    moved.rename(path.parent)
    record("four")
    assert resources(path) == ["four"]
    assert logs.audits_lost() == 3


def test_what_a_full_disk_cuts_off_is_a_line_of_its_own(
    path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    configure(path)
    for number in range(100):  # so that the log of this process, a file too, is smaller
        record(f"before-{number}")
    capfd.readouterr()
    with full(path, room=30):
        record("cut off")
    record("after")

    *_, last, cut, after = path.read_text().splitlines()
    assert json.loads(last)["resource"] == "before-99"
    assert len(cut) == 30
    assert json.loads(after)["resource"] == "after"
    assert [each["level"] for each in records(capfd.readouterr().err)] == ["error", "info", "info"]


def test_a_file_that_is_moved_away_is_followed_by_another_for_its_owner_alone(path: Path) -> None:
    configure(path)
    record("one")
    moved = path.rename(path.with_suffix(".1"))
    record("two")
    assert (resources(moved), resources(path)) == (["one"], ["two"])
    assert path.stat().st_mode & 0o777 == 0o600
