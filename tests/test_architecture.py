"""What an import loads, seen at run time.

import-linter reads the source, so it cannot see that importing a module also runs the packages
around it, nor what an import does lazily.
"""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("dropnorm.spec", {"grpc", "google.protobuf", "torch"}),
        ("dropnorm.results", {"grpc", "google.protobuf", "torch"}),
        ("dropnorm", {"grpc", "grpc_tools", "google.protobuf", "mlflow", "sqlalchemy", "torch"}),
        ("dropnorm.client", {"grpc_tools", "mlflow", "numpy", "sqlalchemy", "torch"}),
        ("dropnorm_service.jobs", {"grpc", "google.protobuf", "numpy", "sqlalchemy", "torch"}),
        ("dropnorm_service.training", {"grpc", "google.protobuf", "mlflow", "sqlalchemy"}),
        ("dropnorm_service.app", {"matplotlib", "mlflow", "numpy", "pandas", "sklearn", "torch"}),
    ],
)
def test_import_does_not_load(module: str, absent: set[str]) -> None:
    assert loaded_by_importing(module) & absent == set()


def loaded_by_importing(module: str) -> set[str]:
    command = [sys.executable, "-c", f"import sys, {module}; print(*sys.modules)"]
    run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return set(run.stdout.split())


def test_nobody_who_does_not_trace_loads_opentelemetry() -> None:
    loaded = loaded_by_importing("dropnorm_service.app, dropnorm.client")
    assert not {name for name in loaded if name.startswith("opentelemetry")}
