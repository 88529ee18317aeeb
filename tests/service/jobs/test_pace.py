"""Progress is told often at first, and seldom in a long training."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise

from tests.service.store.rows import NOON

from dropnorm.results import LogLine, Phase, Progress, Progressed
from dropnorm_service.jobs.pace import ProgressPace


def progressed(step: int, phase: Phase = "training") -> Progressed:
    return Progressed(progress=Progress(phase=phase, epoch=0, epochs=1, step=step, steps=10**6))


def through(seconds: int) -> Sequence[int]:
    """The seconds of which a worker's report, one in each, is written."""
    pace = ProgressPace()
    return [
        second
        for second in range(seconds)
        if pace.lets_through(NOON + timedelta(seconds=second), progressed(second))
    ]


def test_every_report_of_a_short_training_is_written():
    assert through(90) == list(range(90))


def test_a_day_of_progress_is_some_thousand_events_and_never_long_silent():
    told = through(86_400)
    assert len(told) < 9_000
    assert max(after - before for before, after in pairwise(told)) == 10


def test_a_new_phase_and_all_that_is_no_progress_is_written_at_once():
    pace = ProgressPace()
    assert pace.lets_through(NOON, progressed(0))
    late = NOON + timedelta(hours=1)
    assert pace.lets_through(late, progressed(1))
    soon = late + timedelta(seconds=1)
    assert not pace.lets_through(soon, progressed(2))
    assert pace.lets_through(soon, LogLine(message="hello"))
    assert pace.lets_through(soon, progressed(2, "validating"))
    assert not pace.lets_through(soon, progressed(3))
    assert not pace.lets_through(soon, progressed(4, "validating"))


def test_a_clock_that_is_set_back_silences_nobody():
    pace = ProgressPace()
    for hours in (0, 2, 1):
        assert pace.lets_through(NOON + timedelta(hours=hours), progressed(hours))
    assert not pace.lets_through(NOON + timedelta(hours=1, seconds=1), progressed(3))
    assert pace.lets_through(NOON - timedelta(hours=1), progressed(4))
    assert pace.lets_through(NOON - timedelta(minutes=59), progressed(5))
