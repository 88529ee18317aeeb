"""MLflow's page, as `dropnorm ui` serves it. What it shows is tested with a browser."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.ports import free_port
from tests.service.tracking.page import mlflow_server
from tests.service.tracking.story import Story

from dropnorm_service.tracking import TrackingConfig, UnsupportedTrackingUri, ui


def test_the_store_is_in_the_data_folder_unless_another_is_named(tmp_path: Path):
    own = TrackingConfig.resolve(tmp_path)
    assert own.tracking_uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert own.artifact_root == tmp_path / "mlflow-artifacts"
    shared = TrackingConfig.resolve(tmp_path, "https://mlflow.example.org/")
    assert shared.tracking_uri == "https://mlflow.example.org/"
    assert shared.artifact_root is None


def test_a_page_is_served_to_this_machine_alone(tmp_path: Path):
    arguments = ui.server_arguments(TrackingConfig.resolve(tmp_path), port=5005)
    assert arguments[arguments.index("--host") + 1] == "127.0.0.1"
    assert (
        arguments[arguments.index("--backend-store-uri") + 1] == f"sqlite:///{tmp_path}/mlflow.db"
    )
    assert ui.server_environment()["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_a_tracking_server_has_its_own_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    ui.main(["--data-dir", str(tmp_path), "--tracking-uri", "https://mlflow.example.org/"])
    page = "https://mlflow.example.org/#/experiments?workflowType=machine_learning"
    assert page in capsys.readouterr().out


@pytest.mark.parametrize(
    ("uri", "refusal"),
    [
        ("file:///somewhere/mlruns", "file:///somewhere/mlruns is a folder"),
        ("./mlruns", "MLFLOW_ALLOW_FILE_STORE=true"),
        ("mongodb://me@host/runs", "//...@host/runs is of a kind"),
    ],
)
def test_a_store_that_mlflow_does_not_write_to_is_refused(
    uri: str, refusal: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(UnsupportedTrackingUri, match=re.escape(refusal)):
        TrackingConfig.resolve(tmp_path, uri)
    with pytest.raises(SystemExit, match="2"):
        ui.main(["--data-dir", str(tmp_path), "--tracking-uri", uri])
    assert refusal in capsys.readouterr().err


def test_a_password_reaches_the_page_by_no_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    uri, became = "postgresql://me:secret@host/runs", []
    with pytest.raises(SystemExit, match="2"):
        ui.main(["--data-dir", str(tmp_path), "--tracking-uri", uri])
    assert "DROPNORM_MLFLOW_TRACKING_URI" in capsys.readouterr().err

    monkeypatch.setenv("DROPNORM_MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr("os.execve", lambda *program: became.append(program))
    ui.main(["--data-dir", str(tmp_path)])
    [(_, command, environment)] = became
    assert "secret" not in " ".join(command)
    assert environment["DROPNORM_MLFLOW_TRACKING_URI"] == uri
    assert "secret" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "uri", ["postgresql+psycopg2://host/runs", "mysql://host/runs", "mssql://host/runs"]
)
def test_every_database_of_mlflow_can_be_named(uri: str, tmp_path: Path):
    config = TrackingConfig.resolve(tmp_path, uri)
    assert config.tracking_uri == uri
    assert config.artifact_root == tmp_path / "mlflow-artifacts"
    assert not config.remote


def test_modules_in_the_working_folder_are_not_run(
    tmp_path: Path, config: TrackingConfig, monkeypatch: pytest.MonkeyPatch
):
    work = tmp_path / "work"
    work.mkdir()
    for name in ("mlflow", "uvicorn", "fastapi", "sqlalchemy", "huey"):
        (work / f"{name}.py").write_text("raise SystemExit('a module of somebody else')")
    log = tmp_path / "server.log"
    monkeypatch.chdir(work)
    with mlflow_server(config, free_port(), log):
        assert "somebody else" not in log.read_text()


@pytest.mark.slow
async def test_a_page_and_a_mirror_make_the_store_one_at_a_time(
    story: Story, tracked, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    new = TrackingConfig.resolve(tmp_path / "new")
    await story.whole("first")
    async with tracked(new) as tracker:
        with ExitStack() as stack:
            page = mlflow_server(new, free_port(), tmp_path / "server.log")
            await asyncio.to_thread(stack.enter_context, page)  # fails when the server does
            await tracker.caught_up()
    assert "unavailable" not in caplog.text


@pytest.mark.slow
def test_a_service_does_not_start_on_a_store_that_is_none(tmp_path: Path):
    command = [sys.executable, "-m", "dropnorm_service", "--data-dir", str(tmp_path), "--port", "0"]
    command += ["--mlflow-tracking-uri", "file:///somewhere/mlruns"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "dropnorm serve: the MLflow tracking URI file:///somewhere/mlruns" in ended.stderr
    assert ended.stdout == ""
