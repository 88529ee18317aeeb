"""Where MLflow's page is. That it is served is tested with a browser, and with a mirror that writes to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dropnorm_service.tracking import TrackingConfig, ui


def test_the_store_is_in_the_data_folder_unless_another_is_named(tmp_path: Path):
    own = TrackingConfig.resolve(tmp_path)
    assert own.tracking_uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert own.artifact_root == tmp_path / "mlflow-artifacts"
    shared = TrackingConfig.resolve(tmp_path, "https://mlflow.example.org/")
    assert shared.tracking_uri == "https://mlflow.example.org/"
    assert shared.artifact_root is None


def test_a_page_is_served_to_this_machine_alone(tmp_path: Path):
    command = ui.ui_command(TrackingConfig.resolve(tmp_path), port=5005)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--backend-store-uri") + 1] == f"sqlite:///{tmp_path}/mlflow.db"
    assert ui.ui_environment()["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_a_tracking_server_has_its_own_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    ui.main(["--data-dir", str(tmp_path), "--tracking-uri", "https://mlflow.example.org/"])
    page = "https://mlflow.example.org/#/experiments?workflowType=machine_learning"
    assert page in capsys.readouterr().out
