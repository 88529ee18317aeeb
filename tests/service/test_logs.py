"""Log records: structured, one a line, with the request id of the call they belong to."""

import json
import logging

import pytest

from dropnorm_service import logs
from dropnorm_service.api.context import request_id
from dropnorm_service.settings import Settings


@pytest.fixture(autouse=True)
def _restore_root_logger() -> object:
    root = logging.getLogger()
    before = (root.level, root.handlers[:])
    yield
    root.setLevel(before[0])
    root.handlers[:] = before[1]


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


def test_a_line_break_in_a_value_cannot_forge_a_text_record(
    capfd: pytest.CaptureFixture[str],
) -> None:
    logs.configure(Settings(log_format="text"))
    logging.getLogger("dropnorm.test").warning("name %s", "a\nERROR forged")
    assert len(capfd.readouterr().err.splitlines()) == 1
