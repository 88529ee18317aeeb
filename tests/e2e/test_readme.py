"""The README's blocks, as a reader would copy them: every Python block, and its `dropnorm` and `buf` lines."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dropnorm as dn
from dropnorm_service.settings import Settings

README = Path(__file__).parents[2] / "README.md"

# They run until they are interrupted; the demo has a test of its own.
LASTING = ("dropnorm serve", "dropnorm ui", "dropnorm demo")


def blocks(language: str, under: str = "", page: Path = README) -> list[str]:
    """The blocks of one language, of a whole page or of the part under one heading."""
    text = page.read_text(encoding="utf-8")
    if under:
        text = re.split(r"^#", text.split(f"# {under}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def commands(under: str) -> list[list[str]]:
    """The commands under a heading that end by themselves."""
    [block] = blocks("sh", under)
    lines = block.replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if not line.startswith(LASTING)]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dn.LocalService]:
    folder = tmp_path_factory.mktemp("readme")
    with dn.local(folder / "data", cpu_slots=1, threads_per_slot=1, tracking=False) as service:
        yield service


@pytest.fixture
def run(service, tmp_path):
    """Run one of the page's commands against the service, in a folder with the page's `digits.yaml`."""
    [spec] = blocks("yaml")
    (tmp_path / "digits.yaml").write_text(spec, encoding="utf-8")

    def run(command: list[str]) -> str:
        program, *arguments = command
        start = {
            "dropnorm": [sys.executable, "-m", "dropnorm.cli"],
            "buf": [str(Path(sys.executable).with_name("buf"))],
        }
        arguments = [
            argument.replace(dn.Client().address, service.address) for argument in arguments
        ]
        done = subprocess.run(
            [*start[program], *arguments],
            check=False,
            cwd=tmp_path,
            env=os.environ | {"DROPNORM_ADDRESS": service.address},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    return run


def execute(folder: Path, *python: str, **environment: str) -> str:
    """Run Python blocks as one program in a folder of its own."""
    (folder / "page.py").write_text("\n".join(python), encoding="utf-8")
    command = [sys.executable, "page.py"]
    env = os.environ | environment
    done = subprocess.run(command, check=False, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_train_and_find_it_in_mlflow(tmp_path):
    out = execute(tmp_path, blocks("python")[0], *blocks("python", "MLflow"))

    assert "queued" in out
    assert "tensor([0, 1, 2, 3, 4])\n[0 1 2 3 4]\n" in out


@pytest.mark.slow
def test_compare_variants(tmp_path):
    # Without the export of six models, which the page does not speak of there.
    block = blocks("python", "Compare variants over seeds")
    out = execute(tmp_path, *block, DROPNORM_TRACKING="false")

    assert "batch norm ['0." in out
    assert (tmp_path / "variants.png").stat().st_size > 0


def test_train_without_a_service(tmp_path):
    out = execute(tmp_path, *blocks("python", "Train in a notebook, without a service"))

    assert "classification of digits: best epoch" in out


def test_train_watch_and_plan(service, run):
    shown = [run(command) for command in commands("Train from YAML with the command line")]

    assert "accuracy" in shown[0]
    assert "digits-both" in shown[1]
    assert service.job("digits-both").state is dn.State.SUCCEEDED
    for command in commands("Watch"):
        assert "evaluation" in run(command)
    [plan] = commands("Plan before you pay")
    assert "BIAS_BEFORE_BATCH_NORM" in run(plan)


def test_the_convolutional_network_fits_its_data(service):
    [block] = blocks("python", "Train from Python")
    names: dict[str, Any] = {}
    exec(block, names)  # noqa: S102 (the page's own text)

    assert service.plan(names["spec"]).lints == ()


def test_steering(service, run, capsys):
    endless = dn.TrainingSpec(
        architecture=dn.MLP(hidden=(16,)),
        data=dn.Data(dataset="iris"),
        optimization=dn.Optimization(epochs=100_000, batch_size=1),
    )
    blocker = service.train(endless, priority=1)  # in the only slot, so that the page's job waits
    next(event for event in blocker.watch() if event.kind == "epoch")
    train, *steps = commands("Pause, resume, cancel")

    assert "tonight" in run(train)
    assert [run(step).split()[-1] for step in steps] == ["paused", "queued", "cancelled", "deleted"]
    blocker.cancel()
    with pytest.raises(dn.JobCancelled):
        blocker.result()
    [block] = blocks("python", "Pause, resume, cancel")
    exec(block, {"job": blocker})  # noqa: S102 (the page's own text)
    assert len(capsys.readouterr().out.splitlines()) == len(blocker.history()) > 0


def test_a_client_in_another_language(service, run):
    create, watch = commands("Clients in other languages")

    assert "trainingJobs/by-hand" in run(create)
    assert "STATE_SUCCEEDED" in run(watch)
    assert service.job("by-hand").evaluation is not None


def test_the_page_names_every_setting_and_its_pictures():
    text = README.read_text(encoding="utf-8")
    for name in Settings.model_fields:
        assert f"`--{name.replace('_', '-')}`" in text
        assert f"`DROPNORM_{name.upper()}`" in text
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", text):
        assert (README.parent / picture).is_file()
