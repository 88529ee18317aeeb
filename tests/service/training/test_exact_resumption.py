"""Whatever a training is made of, and wherever it is stopped, it ends bit for bit like one that was not."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

import pytest
from tests.service.training.made import split_of
from tests.service.training.resumption_cases import CASES, ELSEWHERE
from tests.service.training.spec_options import held, wanted
from tests.service.training.stopping import Asked, Place, outcome, run, stopped_at, telling
from tests.service.training.test_regularized_families import ARCHITECTURES

from dropnorm import spec as dn
from dropnorm_service.training import frechet
from dropnorm_service.training.families import COMPOSITES, FAMILIES


@pytest.mark.parametrize("name", CASES)
def test_a_stop_anywhere_changes_no_bit(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frechet, "_STEPS", 10)  # of another network, which each attempt trains anew
    spec, dataset = CASES[name]
    data, asked = split_of(spec, dataset), Asked()
    whole = outcome(run(spec, data, asked))
    places = telling(asked.places)
    assert outcome(stopped_at(places, spec, data, tmp_path)) == whole


def test_every_family_is_among_the_cases() -> None:
    assert {each.kind for each in ARCHITECTURES.values()} == set(FAMILIES) | set(COMPOSITES)


def test_all_that_a_spec_can_ask_for_is_among_the_cases() -> None:
    there = {each for spec, _ in CASES.values() for each in held(spec)}
    missing = [each for each in wanted(dn.TrainingSpec) if each not in there]
    unexplained = [each for each in missing if not any(fnmatch(each, known) for known in ELSEWHERE)]
    assert unexplained == []
    stale = [known for known in ELSEWHERE if not any(fnmatch(each, known) for each in missing)]
    assert stale == [], "what is said of them is no longer so"


def test_stops_come_at_the_edges_of_every_phase() -> None:
    spec, dataset = CASES["found by itself"]
    asked = Asked()
    run(spec, split_of(spec, dataset), asked)
    places = telling(asked.places)
    assert {place.phase for place in places} == {
        "building",
        "tuning",
        "training",
        "validating",
        "testing",
    }
    assert Place("training", 0, 1) in places
    assert len(places) > 12
