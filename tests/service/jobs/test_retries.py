"""How long a job waits for its next attempt, and when there is none."""

from __future__ import annotations

import pytest

from dropnorm_service.jobs.retries import Retries, RetryPolicy

POLICY = RetryPolicy(limit=4, first_delay=2.0, max_delay=10.0)


def retries(share: float = 0.0) -> Retries:
    return Retries(POLICY, lambda: share)


def test_each_loss_in_a_row_doubles_the_delay_up_to_its_limit():
    some = retries()
    delays = []
    for _ in range(5):
        some.lost("a", 0, "WORKER_LOST")
        delays.append(some.delay("a"))
    assert delays == [2.0, 4.0, 8.0, 10.0, 10.0]
    assert some.delay("b") == 0.0


@pytest.mark.parametrize(("share", "delay"), [(0.0, 2.0), (0.5, 1.5), (1.0, 1.0)])
def test_chance_shortens_the_delay_by_up_to_half(share: float, delay: float):
    some = retries(share)
    some.lost("a", 0, "WORKER_LOST")
    assert some.delay("a") == delay


def test_jobs_that_are_lost_together_come_back_at_different_times():
    some = Retries(POLICY)
    for number in range(20):
        some.lost(str(number), 0, "WORKER_LOST")
    assert len({some.delay(str(number)) for number in range(20)}) > 10


def test_a_checkpoint_further_on_begins_the_count_anew():
    some = retries()
    assert [some.lost("a", 0, "WORKER_LOST") for _ in range(3)] == [True, True, True]
    assert some.lost("a", 5, "WORKER_LOST")
    assert some.delay("a") == 0.0
    assert [some.lost("a", 5, "WORKER_LOST") for _ in range(4)] == [True, True, True, False]


def test_what_does_not_count_waits_all_the_same():
    some = retries()
    assert all(some.lost("a", step, "DISK_FULL") for step in (0, 0, 0, 0, 0, 9, 9))
    assert some.delay("a") == 4.0
    some.forget("a")
    assert some.delay("a") == 0.0


@pytest.mark.parametrize(("steps", "allowed"), [((1, 2, 3, 4), True), ((1, 1, 1), False)])
def test_only_a_checkpoint_further_on_is_progress(steps: tuple[int, ...], allowed: bool):
    some = Retries(RetryPolicy(limit=2))
    assert [some.lost("a", step, "WORKER_LOST") for step in steps][-1] is allowed
