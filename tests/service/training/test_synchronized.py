"""Batch norm over processes: two real ones, each with a share of the batch, against one with all of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.service.training import synchronized_share
from tests.service.training.synchronized_share import CUTS, FORMS, passed
from torch import Tensor, nn

from dropnorm_service.training.layers.synchronized import SynchronizedBatchNorm

ROOT = Path(__file__).parents[3]
Found = dict[Any, dict[str, Tensor]]


@pytest.fixture(scope="module")
def shares(tmp_path_factory: pytest.TempPathFactory) -> list[Found]:
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("processes")
    script = [sys.executable, "-m", synchronized_share.__name__, str(folder)]
    running = [subprocess.Popen([*script, str(rank), "2"], cwd=ROOT) for rank in range(2)]
    assert [process.wait(timeout=240) for process in running] == [0, 0]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("shape", CUTS, ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_two_processes_normalise_as_one_with_the_whole_batch(
    shape: tuple[int, ...], form: str, shares: list[Found]
) -> None:
    whole = passed(shape, form, slice(None))
    parts = [share[shape, form] for share in shares]
    frozen = (
        form != "plain"
    )  # without running statistics each process would evaluate by its own batch
    for name, expected in whole.items():
        values = [part[name] for part in parts]
        if name.startswith("buffer"):
            for each in values:
                torch.testing.assert_close(each, expected, msg=name)
        elif name.startswith("gradient of"):
            torch.testing.assert_close(sum(values), expected, rtol=1e-4, atol=1e-4, msg=name)
        elif frozen or not name.startswith(f"{synchronized_share.STEPS} "):
            torch.testing.assert_close(torch.cat(values), expected, rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize("momentum", [0.3, None])
def test_alone_it_is_torchs_batch_norm(momentum: float | None) -> None:
    ours, theirs = SynchronizedBatchNorm(3, momentum=momentum), nn.BatchNorm2d(3, momentum=momentum)
    for _ in range(2):
        x = torch.randn(4, 3, 2, 5)
        torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
