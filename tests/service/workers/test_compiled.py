"""What workers compile: kept with the job's checkpoints, and nowhere else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.service.workers.conftest import training
from tests.service.workers.conversation import running
from torch._inductor import config

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
    spec, epochs = training(ENDLESS, compute=Compute(device="cpu", compile=True)), 0
    async with (
        ForkServer() as forks,
        LocalExecutor(forks, data=data, cpu_slots=1, threads_per_slot=1, gpus=0) as executor,
    ):

        async def libraries(number: int) -> dict[Path, tuple[int, int]]:
            """Time and size of each, when an attempt has trained some epochs itself and is paused."""
            nonlocal epochs
            job = launch(spec, attempt=number, epochs_told=epochs)
            async with running(executor, job) as attempt:
                await attempt.until(EpochCompleted, 3)
                executor.order("job", "pause")
                assert await attempt.outcome() == Stopped("pause")
                epochs += sum(isinstance(each, EpochCompleted) for each in attempt.said)
            found = (job.folder / CHECKPOINTS).rglob("*.so")
            return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in found}

        first = await libraries(1)
        assert first
        assert await libraries(2) == first, "nothing was compiled again"
        cut_off = min(first)
        os.truncate(cut_off, 4096)  # whoever loads it is ended by a signal
        third = await libraries(3)
    assert third[cut_off][1] == first[cut_off][1]
    assert third | {cut_off: first[cut_off]} == first, "nothing else was"
    assert not list(elsewhere.glob("torchinductor*/*"))


@pytest.fixture
def compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where an attempt compiles."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "elsewhere")
    with config.patch(cpp_cache_precompile_headers=True):  # as it was, when the test has ended
        keep_compiled(Checkpoints(tmp_path))
        folder = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
        assert folder.is_relative_to(tmp_path)
        (folder / "ab").mkdir()
        yield folder


def test_what_was_compiled_behind_the_last_checkpoint_is_not_trusted(
    compiled: Path, tmp_path: Path
) -> None:
    """It may have been cut off, whatever checkpoints there are."""
    (tmp_path / "000001.json").write_text("{}")
    attempt = keep_compiled(Checkpoints(tmp_path))
    whole, half = compiled / "ab" / "whole.so", compiled / "ab" / "half.so"
    whole.write_bytes(b"whole")
    attempt.list_whole()
    half.write_bytes(b"ha")
    keep_compiled(Checkpoints(tmp_path))
    assert whole.exists()
    assert not half.exists()


def test_what_comes_at_later_checkpoints_is_trusted_too(compiled: Path, tmp_path: Path) -> None:
    first, second, third = (compiled / "ab" / name for name in ("1.so", "2.so", "3.so"))
    attempt = keep_compiled(Checkpoints(tmp_path))
    for path in (first, second):
        path.write_bytes(b"whole")
        attempt.list_whole()
    attempt = keep_compiled(Checkpoints(tmp_path))
    third.write_bytes(b"whole")
    attempt.list_whole()
    keep_compiled(Checkpoints(tmp_path))
    assert sorted(compiled.rglob("*.so")) == [first, second, third]


@pytest.mark.parametrize("content", [b"", b"who", b"whale"], ids=["empty", "cut off", "changed"])
def test_what_is_no_longer_as_it_was_listed_is_not_trusted(
    content: bytes, compiled: Path, tmp_path: Path
) -> None:
    """As after a loss of power, since compilers do not wait for the disk."""
    attempt = keep_compiled(Checkpoints(tmp_path))
    library = compiled / "ab" / "library.so"
    library.write_bytes(b"whole")
    attempt.list_whole()
    library.write_bytes(content)
    keep_compiled(Checkpoints(tmp_path))
    assert not library.exists()


@pytest.mark.parametrize("content", [b"", b"\xff", b"[1]", b'{"ab/library.so": 1}'])
def test_by_a_damaged_list_nothing_is_trusted(
    content: bytes, compiled: Path, tmp_path: Path
) -> None:
    library = compiled / "ab" / "library.so"
    library.write_bytes(b"whole")
    keep_compiled(Checkpoints(tmp_path)).list_whole()
    library.write_bytes(b"whole")
    (tmp_path / "compiled.json").write_bytes(content)
    keep_compiled(Checkpoints(tmp_path))
    assert not library.exists()


def test_a_list_that_cannot_be_written_is_told_of_and_tried_again(
    compiled: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    attempt = keep_compiled(Checkpoints(tmp_path))
    library, obstacle = compiled / "ab" / "library.so", tmp_path / "compiled.json"
    library.write_bytes(b"whole")
    obstacle.mkdir()
    attempt.list_whole()
    assert "cannot be listed (Is a directory)" in caplog.text
    obstacle.rmdir()
    attempt.list_whole()
    keep_compiled(Checkpoints(tmp_path))
    assert library.exists()
