"""The filter language: what it reads, and how it says what it cannot read."""

import contextlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropnorm.results import State
from dropnorm_service.jobs.errors import InvalidListRequest
from dropnorm_service.jobs.filtering import (
    MAX_COMPARISONS,
    MAX_LENGTH,
    MAX_NESTING,
    And,
    Comparison,
    Filter,
    HasLabel,
    IsSet,
    LabelComparison,
    Not,
    Or,
    parse_filter,
)

RUNNING = Comparison("state", "=", State.RUNNING)
URGENT = Comparison("priority", ">=", 10)
VISION = LabelComparison("team", "=", "vision")
NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "  \n "])
def test_an_empty_filter_is_none(text: str):
    assert parse_filter(text) is None


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("state = RUNNING", RUNNING),
        ("state=running", RUNNING),
        ("priority>=10", URGENT),
        ("priority > -5", Comparison("priority", ">", -5)),
        ('labels.team = "vision"', VISION),
        ("labels.team:vision", VISION),
        ("labels.team != vision", LabelComparison("team", "!=", "vision")),
        ("labels:team", HasLabel("team")),
        ("labels.team:*", HasLabel("team")),
        ('labels.team:"*"', LabelComparison("team", "=", "*")),
        ("end_time:*", IsSet("end_time")),
        ("display_name:dropout", Comparison("display_name", ":", "dropout")),
        ("display_name = 'it\\'s \"here\"'", Comparison("display_name", "=", 'it\'s "here"')),
        ("name = trainingJobs/a-1", Comparison("name", "=", "a-1")),
        ("create_time < 2026-01-01T00:00:00Z", Comparison("create_time", "<", NEW_YEAR)),
        ("create_time < 2026-01-01T01:00:00+01:00", Comparison("create_time", "<", NEW_YEAR)),
        ("NOT state = RUNNING", Not(RUNNING)),
        ("-state = RUNNING", Not(RUNNING)),
        ("NOT(state = RUNNING)", Not(RUNNING)),
        ("state = RUNNING AND priority >= 10", And((RUNNING, URGENT))),
        # OR binds tighter than AND.
        (
            "state = RUNNING AND priority >= 10 OR labels.team = vision",
            And((RUNNING, Or((URGENT, VISION)))),
        ),
        (
            "(state = RUNNING AND priority >= 10) OR labels.team = vision",
            Or((And((RUNNING, URGENT)), VISION)),
        ),
    ],
)
def test_what_a_filter_means(text: str, tree: Filter):
    assert parse_filter(text) == tree


@pytest.mark.parametrize(
    ("text", "position", "part"),
    [
        ("state", 6, "expected one of ="),
        ("state =", 8, "expected a value"),
        ("state = SLEEPING", 9, "a state is one of QUEUED, RUNNING"),
        ("state < RUNNING", 7, "state is compared with = != only"),
        ("colour = red", 1, "there is no field colour; the fields are name,"),
        ("priority = high", 12, "expected a whole number"),
        ("priority = 99999999999999999999", 12, "expected a whole number"),
        ("create_time > yesterday", 15, "a time is written as"),
        ("create_time > 2026-01-01T00:00:00", 15, "with its zone"),
        ("create_time:2026-01-01T00:00:00Z", 13, "create_time:* asks"),
        ("name = a-1", 8, "a job's name is trainingJobs/{id}"),
        ("labels = vision", 8, "write labels:KEY"),
        ("labels.Team = vision", 1, "a label's key is"),
        ("labels.team < vision", 13, "a label is compared with"),
        ("state = RUNNING priority = 1", 17, "expected AND, OR or the end"),
        ("state = RUNNING and priority = 1", 17, "expected AND, OR or the end"),
        ("state = RUNNING)", 16, "expected AND, OR or the end"),
        ("(state = RUNNING", 17, "a closing parenthesis"),
        ("state = RUNNING AND", 20, "expected the name of a field"),
        ('display_name = "open', 16, "expected a value"),
        ('display_name = "a\x00b"', 16, "no NUL"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(text: str, position: int, part: str):
    with pytest.raises(InvalidListRequest) as raised:
        parse_filter(text)
    [problem] = raised.value.problems
    assert problem.field == "filter"
    assert problem.message.startswith(f"at character {position}: ")
    assert part in problem.message


@pytest.mark.parametrize(
    "text",
    [
        "(" * (MAX_NESTING + 1) + "state = RUNNING" + ")" * (MAX_NESTING + 1),
        " AND ".join(["state = RUNNING"] * (MAX_COMPARISONS + 1)),
        " " * (MAX_LENGTH + 1),
    ],
    ids=["nesting", "comparisons", "length"],
)
def test_a_filter_has_limits(text: str):
    with pytest.raises(InvalidListRequest, match="at most"):
        parse_filter(text)


WORDS = ["state", "=", "!=", "<", ":", "RUNNING", "AND", "OR", "NOT", "-", "(", ")", '"', "'", "\\"]
WORDS += ["labels", "labels.", "labels.a", "priority", "1", "create_time", "2026-01-01", "*", "é"]


@given(st.one_of(st.text(max_size=40), st.lists(st.sampled_from(WORDS)).map(" ".join)))
def test_any_text_is_a_filter_or_is_refused(text: str):
    with contextlib.suppress(InvalidListRequest):
        assert parse_filter(text) is not None or not text.strip()
