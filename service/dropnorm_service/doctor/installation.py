"""What is installed. torch is looked at in a process of its own: it may break, and it is large."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dropnorm
from dropnorm_service.doctor.findings import Findings, failure, ok, warning
from dropnorm_service.settings import Settings

_NEEDED = ("alembic", "mlflow", "numpy", "safetensors", "sklearn", "sqlalchemy", "torch")
_OPTIONAL = {"export": "onnxruntime", "tracing": "opentelemetry"}
_REINSTALL = "Install the service anew: pip install --force-reinstall 'dropnorm[service]'."
_PATIENCE = 120.0
_DRIVER = Path("/proc/driver/nvidia/version")

# Run as `python -c`: what it says on the last line is JSON.
_PROBE = """
import json, torch
x = torch.rand(64, 64); (x @ x).sum().item()
cuda = torch.cuda.is_available()
print(json.dumps({
    "version": torch.__version__,
    "cuda": torch.version.cuda,
    "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else [],
    "arithmetic": [float((torch.ones(8, device=f"cuda:{i}") * 2).sum()) for i in range(torch.cuda.device_count())]
        if cuda else [],
}))
"""


def look() -> Findings:
    """Versions, and whether every library is there."""
    yield ok(
        "installation",
        f"dropnorm {dropnorm.__version__}, Python {platform.python_version()}, {platform.platform()}.",
    )
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        yield failure(
            "libraries",
            f"The service needs {', '.join(missing)}, and there is no such library.",
            "Install what is missing: pip install 'dropnorm[service]'.",
        )
    else:
        found = [f"{name} {_version(name)}" for name in ("grpcio", "mlflow", "sqlalchemy")]
        yield ok("libraries", f"All that the service needs: {', '.join(found)}.")
    for extra, module in _OPTIONAL.items():
        there = (
            "is there"
            if find_spec(module)
            else f"is not installed (pip install 'dropnorm[{extra}]')"
        )
        yield ok("extras", f"The extra `{extra}` {there}.")


def look_at_devices(settings: Settings) -> Findings:
    """Whether torch can be imported and computes, on the CPU and on each GPU."""
    facts, problem = _ask_torch()
    if facts is None:
        yield failure("torch", f"torch does not work: {problem}", _REINSTALL)
        return
    built = f"built for CUDA {facts['cuda']}" if facts["cuda"] else "built for the CPU alone"
    yield ok("torch", f"torch {facts['version']}, {built}, computes.")
    devices = facts["devices"]
    if settings.gpus and settings.gpus > len(devices):
        yield failure(
            "devices",
            f"gpus is {settings.gpus}, and CUDA can use {len(devices)} on this machine.",
            "Lower --gpus, or see to it that `nvidia-smi` shows them to this user or container.",
        )
    elif devices:
        yield ok("devices", f"CUDA can use {', '.join(devices)}.")
    elif _DRIVER.exists() and settings.gpus != 0:
        yield warning(
            "devices",
            f"There is an NVIDIA driver, but torch ({built}) sees no GPU.",
            "Install torch's CUDA build, or a driver that is new enough for it; `nvidia-smi` shows the driver's.",
        )
    else:
        yield ok("devices", "The CPU alone; no GPU is to be seen.")


def _ask_torch() -> tuple[dict[str, Any] | None, str]:
    """What torch says of itself, or why it says nothing."""
    try:
        run = subprocess.run(
            [sys.executable, "-P", "-c", _PROBE], capture_output=True, text=True, timeout=_PATIENCE
        )
    except subprocess.TimeoutExpired:
        return None, f"it gave no answer within {_PATIENCE:g} seconds."
    if run.returncode != 0:
        said = (run.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return None, f"it ended with status {run.returncode} ({said})."
    return json.loads(run.stdout.splitlines()[-1]), ""


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "of unknown version"
