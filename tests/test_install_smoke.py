"""The bare install, in an environment of its own: what a user of the client alone gets."""

import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

LOAD_EVERY_NAME = """
import dropnorm
for name in dropnorm.__all__:
    try:
        getattr(dropnorm, name)
    except ImportError as error:
        print(error)
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment that holds nothing but dropnorm without extras."""
    folder = tmp_path_factory.mktemp("bare")
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder)
    [wheel] = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv/bin/python"
    run(python, "-m", "pip", "install", "-c", ROOT / "constraints.txt", wheel)
    return python.parent


def run(*command: str | Path) -> str:
    """What it prints; what it complains about is left to pytest to show."""
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def test_installs_only_the_client_libraries(bare: Path) -> None:
    lines = run(bare / "python", "-m", "pip", "list", "--format=freeze").splitlines()
    assert {line.partition("==")[0] for line in lines} - {"pip", "setuptools"} == {
        "annotated-types",
        "dropnorm",
        "googleapis-common-protos",
        "grpcio",
        "grpcio-status",
        "protobuf",
        "pydantic",
        "pydantic_core",
        "typing-inspection",
        "typing_extensions",
    }


def test_imports_quickly(bare: Path) -> None:
    """The best of several, because a busy machine may delay any of them."""
    timed = "import time; t = time.perf_counter(); import dropnorm; print(time.perf_counter() - t)"
    assert min(float(run(bare / "python", "-c", timed)) for _ in range(5)) < 0.3


def test_every_public_name_loads_or_says_which_extra_it_needs(bare: Path) -> None:
    complaints = run(bare / "python", "-c", LOAD_EVERY_NAME).splitlines()
    assert [line for line in complaints if "pip install 'dropnorm[" not in line] == []


def test_serve_says_which_extra_it_needs(bare: Path) -> None:
    serve = subprocess.run([bare / "dropnorm", "serve"], capture_output=True, text=True)
    assert serve.returncode != 0
    assert serve.stdout == ""
    assert "pip install 'dropnorm[service]'" in serve.stderr
    assert len(serve.stderr.strip().splitlines()) == 1
