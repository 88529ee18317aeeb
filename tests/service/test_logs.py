"""Log records: structured, one a line, with the request id of the call they belong to."""

import json
import logging
from typing import Literal

import pytest

from dropnorm_service import log_context, logs
from dropnorm_service.api.context import caller, request_id
from dropnorm_service.jobs.callers import Caller, Role
from dropnorm_service.settings import Settings

pytestmark = pytest.mark.usefixtures("garbage_stays")


def test_json_records_carry_extras_the_request_id_and_the_trace(
    capfd: pytest.CaptureFixture[str],
) -> None:
    logs.configure(Settings(log_format="json"))
    token = request_id.set("call-1")
    try:
        raise ValueError("bad\nthing")
    except ValueError:
        logging.getLogger("dropnorm.test").exception("it %s", "broke", extra={"job": "j1"})
    finally:
        request_id.reset(token)
    (line,) = capfd.readouterr().err.splitlines()
    entry = json.loads(line)
    assert entry["message"] == "it broke"
    assert (entry["level"], entry["job"], entry["request_id"]) == ("error", "j1", "call-1")
    assert "ValueError: bad" in entry["trace"]


HOSTILE = [
    "a\nERROR forged",
    "a\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029ERROR forged",
    "\x1b[2J\x1b]0;title\x07\x9b31m",
    "\u202egnp.exe\u2066",
    "\x00\x7f",
    "\ud800",
    '", "level": "debug", "x": "',
]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("form", ["json", "text"])
def test_nothing_in_a_value_can_break_a_line_or_move_a_cursor(
    capfd: pytest.CaptureFixture[str], form: Literal["json", "text"], name: str
) -> None:
    logs.configure(Settings(log_format=form))
    with log_context.bound(job=name):
        logging.getLogger("dropnorm.test").warning("name %s", name, extra={"label": name})
    (line,) = capfd.readouterr().err.splitlines()
    assert line.isprintable()
    if form == "json":
        entry = json.loads(line)
        assert entry["message"] == f"name {name}"
        assert (entry["level"], entry["job"], entry["label"]) == ("warning", name, name)


def test_a_trace_in_text_cannot_forge_a_record_either(capfd: pytest.CaptureFixture[str]) -> None:
    logs.configure(Settings(log_format="text"))
    try:
        raise ValueError("bad\n2026-01-01 00:00:00,000 ERROR   dropnorm: forged\x1b[2J")
    except ValueError:
        logging.getLogger("dropnorm.test").exception("broke")
    record, *trace = capfd.readouterr().err.splitlines()
    assert record.endswith("broke")
    assert all(line.startswith("  | ") and line.isprintable() for line in trace)


def test_what_a_call_site_adds_cannot_pass_for_what_every_record_says(
    capfd: pytest.CaptureFixture[str],
) -> None:
    logs.configure(Settings(log_format="json"))
    extra = {"level": "debug", "logger": "forged", "time": "never"}
    logging.getLogger("dropnorm.test").warning("said", extra=extra)
    entry = json.loads(capfd.readouterr().err)
    assert (entry["level"], entry["logger"], entry["message"]) == (
        "warning",
        "dropnorm.test",
        "said",
    )
    assert entry["time"].endswith("+00:00")


def test_the_user_and_the_job_are_said_where_they_are_known(
    capfd: pytest.CaptureFixture[str],
) -> None:
    logs.configure(Settings(log_format="json"))
    token = caller.set(Caller(user="ada", role=Role.USER))
    try:
        with log_context.bound(job="j1"), log_context.bound(attempt=2):
            logging.getLogger("dropnorm.test").warning("within")
        logging.getLogger("dropnorm.test").warning("outside")
    finally:
        caller.reset(token)
    within, outside = map(json.loads, capfd.readouterr().err.splitlines())
    assert (within["user"], within["job"], within["attempt"]) == ("ada", "j1", 2)
    assert outside["user"] == "ada"
    assert "job" not in outside
