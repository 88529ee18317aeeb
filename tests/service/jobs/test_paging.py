"""Orders, page sizes and page tokens."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropnorm_service.jobs.errors import InvalidListRequest
from dropnorm_service.jobs.paging import Order, page_size, page_token, parse_order, read_token
from dropnorm_service.jobs.ports import JobQuery


@pytest.mark.parametrize(
    ("text", "orders"),
    [
        ("", (Order("create_time", descending=True), Order("name", descending=True))),
        ("priority", (Order("priority"), Order("name"))),
        (
            "priority desc,  create_time asc",
            (Order("priority", descending=True), Order("create_time"), Order("name")),
        ),
        ("name desc, priority", (Order("name", descending=True), Order("priority"))),
    ],
)
def test_an_order_always_decides(text: str, orders: tuple[Order, ...]):
    assert parse_order(text) == orders


@pytest.mark.parametrize(
    "text", ["colour", "priority down", "priority,", ",", "priority desc desc", "name, name desc"]
)
def test_an_order_that_cannot_be_read_is_refused(text: str):
    with pytest.raises(InvalidListRequest) as raised:
        parse_order(text)
    assert raised.value.problems[0].field == "order_by"


@pytest.mark.parametrize(("asked", "given_"), [(0, 50), (1, 1), (1000, 1000), (10**9, 1000)])
def test_page_sizes_have_a_default_and_a_limit(asked: int, given_: int):
    assert page_size(asked) == given_


def test_a_negative_page_size_is_refused():
    with pytest.raises(InvalidListRequest, match="page_size: must be 0 or more, not -1"):
        page_size(-1)


storable = st.characters(codec="utf-8", exclude_characters="\0")  # by every database


@given(st.integers(-(2**63), 2**63 - 1), st.text(storable, max_size=200))
def test_a_token_brings_its_keys_back(number: int, text: str):
    token = page_token(JobQuery(), [number, text])
    assert read_token(JobQuery(page_token=token), [int, str]) == (number, text)


def test_without_a_token_there_are_no_keys():
    assert read_token(JobQuery(), [int, str]) is None


@pytest.mark.parametrize(
    "other", [JobQuery(filter="state = RUNNING"), JobQuery(order_by="priority")]
)
def test_a_token_belongs_to_its_filter_and_order(other: JobQuery):
    token = page_token(other, [3, "a"])
    with pytest.raises(InvalidListRequest, match="belongs to another filter or order_by"):
        read_token(JobQuery(page_token=token), [int, str])


def encoded(content: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode()


GOOD = json.loads(base64.urlsafe_b64decode(page_token(JobQuery(), [3, "a"]) + "=="))

BAD_TOKENS = [
    "x",
    "????",
    "é",
    "A" * 100_000,
    encoded([]),
    encoded({}),
    encoded(3),
    encoded([GOOD[0], 3]),
    encoded([GOOD[0], "3", "a"]),
    encoded([GOOD[0], True, "a"]),
    encoded([GOOD[0], 2**80, "a"]),
    encoded([GOOD[0], [3], {"a": 1}]),
    base64.urlsafe_b64encode(b"[" * 3000).decode(),
]


@pytest.mark.parametrize("token", BAD_TOKENS)
def test_a_forged_token_is_refused(token: str):
    with pytest.raises(InvalidListRequest, match="page_token"):
        read_token(JobQuery(page_token=token), [int, str])


@given(st.text(min_size=1))
def test_any_token_is_refused_or_read(token: str):
    with pytest.raises(InvalidListRequest, match="page_token"):
        read_token(JobQuery(page_token=token), [int, str])
