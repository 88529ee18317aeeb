"""What holds for every test."""

import os

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.figures", "tests.postgres"]

# Several test processes share the CPU, and sums come out the same whatever machine adds them up.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
# A developer's own server settings are none of a test's business.
for name in [name for name in os.environ if name.startswith("DROPNORM_")]:
    if not name.startswith("DROPNORM_TEST_"):
        del os.environ[name]

# On a loaded machine an example may take any time, also to be made up; pytest-timeout has the last word.
settings.register_profile("dropnorm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("dropnorm")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "e2e" in item.path.parts:
            item.add_marker("e2e")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")
