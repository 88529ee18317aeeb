"""`dropnorm.local()`: a real service that lives and dies with the program that started it."""

import os
import signal
import stat
import subprocess
import sys
import time

import pytest

import dropnorm as dn
from dropnorm.datasets import write_bundle
from dropnorm.datasets.arrays import from_arrays
from dropnorm.results import State

SPEC = dn.TrainingSpec(
    architecture=dn.MLP(hidden=(16,)),
    data=dn.Data(dataset="iris"),
    optimization=dn.Optimization(epochs=3, batch_size=16),
)
ENDLESS = SPEC.model_copy(update={"optimization": dn.Optimization(epochs=100_000, batch_size=1)})

ABANDON = """
import os, sys
import dropnorm as dn
service = dn.local(sys.argv[1], cpu_slots=1, tracking=False)
print(service._process.pid, flush=True)
os.kill(os.getpid(), 9)
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_trains_and_keeps_everything_for_the_next_time(tmp_path, monkeypatch):
    # What the environment says of other services is not about this one.
    monkeypatch.setenv("DROPNORM_TOKEN", "dn_of_another")
    monkeypatch.setenv("DROPNORM_TLS_CERTIFICATE", "/of/another.pem")
    monkeypatch.setenv("DROPNORM_AUTHENTICATION", "tokens")
    with dn.local(tmp_path / "data", cpu_slots=1, tracking=False) as service:
        pid = service._process.pid
        assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
        evaluation = service.train(SPEC, name="first", job_id="first").result()
        assert len(evaluation.history) == 3

    assert not alive(pid)
    assert service.log_file.exists()
    with dn.local(tmp_path / "data", cpu_slots=1, tracking=False) as again:
        assert again.job("first").result() == evaluation


def test_settings_reach_the_service(tmp_path):
    with dn.local(tmp_path, cpu_slots=3, threads_per_slot=1, tracking=False) as service:
        [worker] = service.workers()

    assert [slot.threads for slot in worker.slots if slot.device == "cpu"] == [1, 1, 1]


def test_folders_are_paths_in_lists_too(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    write_bundle(from_arrays([[1.0], [2.0]] * 20, [0, 1] * 20), shared / "mine")
    settings = {"import_dirs": [shared], "datasets_dir": shared}
    with dn.local(tmp_path / "data", cpu_slots=1, tracking=False, **settings) as service:
        assert service.datasets.import_file("mine", str(shared / "mine")).samples == 40


def test_settings_that_cannot_be_are_named(tmp_path):
    with pytest.raises(dn.StartFailed, match=r"ended with exit status [^0](.|\n)*cpu_slots"):
        dn.local(tmp_path, cpu_slots=-1)


def test_one_data_folder_serves_one_service(tmp_path):
    with (
        dn.local(tmp_path, cpu_slots=1, tracking=False),
        pytest.raises(dn.StartFailed, match="ended with exit status"),
    ):
        dn.local(tmp_path, cpu_slots=1, tracking=False)


def test_a_job_under_way_goes_on_next_time(tmp_path):
    with dn.local(tmp_path, cpu_slots=1, tracking=False) as service:
        job = service.train(ENDLESS, job_id="long")
        for event in job.watch():
            if event.kind == "epoch":
                break

    with dn.local(tmp_path, cpu_slots=1, tracking=False) as service:
        job = service.job("long")
        assert not job.state.terminal
        for event in job.watch(after=job.snapshot.last_sequence):
            if isinstance(event.payload, dn.EpochCompleted):
                assert event.payload.metrics.epoch > 1
                break
        job.cancel()
        with pytest.raises(dn.JobCancelled):
            job.result()
        assert job.state is State.CANCELLED


def test_a_program_that_is_killed_leaves_no_service_behind(tmp_path):
    program = [sys.executable, "-c", ABANDON, str(tmp_path)]
    killed = subprocess.run(program, stdout=subprocess.PIPE, check=False)

    assert killed.returncode == -signal.SIGKILL
    pid = int(killed.stdout)
    deadline = time.monotonic() + 120
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(pid)
