"""What workers compile: kept with the job's checkpoints, and nowhere else."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.service.workers.conftest import training
from tests.service.workers.conversation import running

from dropnorm.results import EpochCompleted
from dropnorm.spec import Compute
from dropnorm_service.jobs.ports import CHECKPOINTS, Launch, Stopped
from dropnorm_service.training import Checkpoints
from dropnorm_service.workers import DataSettings, ForkServer, LocalExecutor
from dropnorm_service.workers.child.compiled import keep_compiled

ENDLESS = 100_000


@pytest.mark.slow
@pytest.mark.timeout(600)  # it compiles two networks
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
async def test_the_next_attempt_finds_what_was_compiled_and_the_system_keeps_nothing(
    data: DataSettings,
    launch: Callable[..., Launch],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    elsewhere = tmp_path / "tmp"
    elsewhere.mkdir()
    monkeypatch.setenv("TMPDIR", str(elsewhere))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    spec = training(ENDLESS, compute=Compute(device="cpu", compile=True))
    found = []
    async with (
        ForkServer() as forks,
        LocalExecutor(forks, data=data, cpu_slots=1, threads_per_slot=1, gpus=0) as executor,
    ):
        for number in (1, 2):
            job = launch(spec, attempt=number)
            async with running(executor, job) as attempt:
                await attempt.until(EpochCompleted, 3)
                executor.order("job", "pause")
                assert await attempt.outcome() == Stopped("pause")
            libraries = (job.folder / CHECKPOINTS).rglob("*.so")
            found.append({path.name: path.stat().st_mtime_ns for path in libraries})
    assert found[0]
    assert found[1] == found[0], "nothing was compiled again"
    # Headers are the compiler's alone, the same for every job.
    kept = {path.name for path in elsewhere.glob("torchinductor*/*")}
    assert kept <= {"precompiled_headers"}


def test_what_an_attempt_compiled_that_came_to_no_checkpoint_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "elsewhere")
    half = tmp_path / "compiled" / "half.so"
    half.parent.mkdir()
    half.write_bytes(b"")
    keep_compiled(Checkpoints(tmp_path))
    assert not half.exists()
    half.write_bytes(b"")
    (tmp_path / "000001.json").write_text("{}")
    keep_compiled(Checkpoints(tmp_path))
    assert half.exists()
