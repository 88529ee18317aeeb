"""Trainings made up at random, stopped, killed and robbed of their newest checkpoint at random, end the same."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest
import torch
from tests.service.training.random_specs import made_up
from tests.service.training.stopping import Asked, Place, outcome, run
from tests.service.training.test_resumption import damage

from dropnorm import spec as dn
from dropnorm_service.training import Checkpoints, Diverged, Interrupted, Order, SplitData

EXAMPLES = int(os.environ.get("DROPNORM_TEST_FUZZ_EXAMPLES", "0")) or 12
"""Trainings, each made up from its number alone."""


class Killed(BaseException):
    """The process ends here."""


class Killing(Asked):
    """Orders a checkpoint at one place, and kills at a later one."""

    def __init__(self, checkpoint: Place, end: Place) -> None:
        super().__init__(checkpoint, Order.CHECKPOINT)
        self._end = end

    def __call__(self) -> Order:
        order = super().__call__()
        if self.places[-1] == self._end:
            raise Killed
        return order


def attempt(
    draw: Random, spec: dn.TrainingSpec, data: SplitData, places: list[Place], folder: Path
) -> None:
    """One that ends at a place of chance, and may leave damage."""
    how = draw.choice(["paused", "killed", "damaged"])
    first, last = sorted(draw.choices(range(len(places)), k=2))
    asked = Killing(places[first], places[last]) if how == "killed" else Asked(places[last])
    print(how, places[first] if how == "killed" else "", places[last])
    elsewhere(draw)
    with suppress(Interrupted, Killed):
        run(spec, data, asked, checkpoint=Checkpoints(folder))
    if how == "damaged" and not Checkpoints(folder).empty:
        damage(folder, 1)


def elsewhere(draw: Random) -> None:
    """Torch's own generator is where another process might have left it."""
    torch.manual_seed(draw.randrange(2**31))


@pytest.mark.parametrize("number", range(EXAMPLES))
def test_it_ends_bit_for_bit_the_same(number: int, tmp_path: Path) -> None:
    draw = Random(number)  # noqa: S311 - no secret
    spec, data = made_up(draw)
    print(spec.model_dump_json(exclude_defaults=True))
    asked = Asked()
    try:
        whole = outcome(run(spec, data, asked))
    except Diverged:
        with pytest.raises(Diverged):
            run(spec, data, Asked(), checkpoint=Checkpoints(tmp_path))
        return
    for _ in range(3):
        attempt(draw, spec, data, asked.places, tmp_path)
    elsewhere(draw)
    assert outcome(run(spec, data, Asked(), checkpoint=Checkpoints(tmp_path))) == whole
