"""A backup that is made of containers as docs/operations.md tells, and brought back into empty volumes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.docker.engine import ROOT, SERVICES, Composition
from tests.docker.jobs import check_mirrored, next_epoch
from tests.e2e.servers import after_epoch, check_journal, long, spec
from tests.e2e.test_readme import blocks

import dropnorm as dn

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(3600)]

PAGE = ROOT / "docs" / "operations.md"


def test_what_is_brought_back_goes_on_as_if_nothing_had_been(
    team: Composition, client: dn.Client, tmp_path: Path
) -> None:
    back_up, restore = blocks("sh", "Backups of containers", PAGE)
    inputs = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    client.datasets.upload("mine", inputs, inputs[:, 0] > 0)
    done = client.train(spec("mine"))
    evaluation = done.result()
    predicted = client.models.predict(done.name, inputs)
    check_mirrored(team, done, "FINISHED")
    running = client.train(long(), experiment="restored")
    last = after_epoch(running).sequence

    team.script(back_up, tmp_path)
    team.healthy(*SERVICES)
    next_epoch(running, last)
    lost = client.train(long(), name="accepted after the backup")
    team.compose("down", "--volumes")
    team.script(restore, tmp_path)
    team.healthy(*SERVICES)

    with pytest.raises(dn.NotFound):
        lost.refresh()
    assert done.refresh().result() == evaluation
    np.testing.assert_array_equal(
        client.models.predict(done.name, inputs).outputs, predicted.outputs
    )
    assert client.train(done.spec).result().test == evaluation.test, "the data set is there too"
    next_epoch(running, last)
    running.cancel()
    with pytest.raises(dn.JobCancelled):
        running.result()
    for job, status in ((done, "FINISHED"), (running, "KILLED")):
        check_journal(list(job.watch()))
        check_mirrored(team, job, status)
