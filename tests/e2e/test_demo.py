"""`dropnorm demo`, as a new user runs it."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

MNIST = Path(
    os.environ.get("DROPNORM_TEST_MNIST")
    or Path(__file__).parents[2] / ".." / "shared" / "data" / "mnist"
)
PNG = b"\x89PNG\r\n\x1a\n"


pytestmark = pytest.mark.timeout(600)


def demo(*arguments: object) -> str:
    command = [sys.executable, "-m", "dropnorm.cli", "demo", *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def check(out: str, folder: Path, dataset: str, jobs: int) -> None:
    for way in ("plain", "dropout", "batch norm", "both"):
        assert f"\n {way} " in out
    assert f"{jobs} trainings in" in out
    assert (folder / f"learning-curves-{dataset}.png").read_bytes().startswith(PNG)
    [ui] = [line for line in out.splitlines() if line.startswith("MLflow's page on these runs: ")]
    command = ui.partition(": ")[2].partition("  and open ")[0].split()
    assert command[1:] == ["ui", "--data-dir", str(folder)]
    help_text = subprocess.run([command[0], "ui", "--help"], check=True, stdout=subprocess.PIPE)
    assert b"MLflow's page" in help_text.stdout
    with sqlite3.connect(folder / "mlflow.db") as database:
        runs = database.execute("select status, count(*) from runs group by status").fetchall()
        models = database.execute("select count(*) from logged_models").fetchall()
    assert runs == [("FINISHED", jobs)]
    assert models == [(jobs,)]


@pytest.mark.slow
def test_demo_on_digits(tmp_path):
    out = demo("--data-dir", tmp_path / "demo", "--seeds", 2)

    check(out, tmp_path / "demo", "digits", 8)
    assert "±" in out


@pytest.mark.slow
@pytest.mark.skipif(
    not MNIST.is_dir(), reason="needs MNIST's files; DROPNORM_TEST_MNIST names their folder"
)
def test_demo_on_mnist(tmp_path):
    out = demo("--data-dir", tmp_path / "demo", "--seeds", 1, "--mnist", MNIST)

    check(out, tmp_path / "demo", "mnist", 4)


def test_a_folder_that_is_not_there(tmp_path):
    options = ["--data-dir", tmp_path / "demo", "--mnist", tmp_path / "nothing"]
    command = [sys.executable, "-m", "dropnorm.cli", "demo", *options]
    done = subprocess.run(command, check=False, capture_output=True, text=True)

    assert done.returncode == 2
    assert "There is no file or folder" in done.stderr
    assert not (tmp_path / "demo").exists()
