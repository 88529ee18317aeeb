"""Replies that are remembered: by their bytes, not their number."""

from tests.service.store.rows import draft

from dropnorm.results import TrainingJob
from dropnorm_service.api.replies import Replies

LONG = 10_000


def job(name: str) -> TrainingJob:
    return draft(name, experiment="e" * LONG)


def test_a_reply_is_made_once() -> None:
    replies = Replies()
    assert replies.job(job("a")) is replies.job(job("a"))


def test_long_replies_push_out_those_that_were_used_longest_ago() -> None:
    replies = Replies(limit_bytes=int(2.5 * LONG))
    first, second = replies.job(job("a")), replies.job(job("b"))
    assert replies.job(job("a")) is first
    replies.job(job("c"))
    assert replies.job(job("a")) is first
    again = replies.job(job("b"))
    assert again == second
    assert again is not second


def test_a_reply_longer_than_all_the_room_is_not_remembered() -> None:
    replies = Replies(limit_bytes=LONG)
    reply = replies.job(job("a"))
    assert len(reply) > LONG
    assert replies.job(job("a")) is not reply
