"""A service whose workers are changed by a module of the tests, which its fork server loads too."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

_WORKERS = "dropnorm_service.workers.child.preload"


def serve(module: str) -> int:
    """Serve with the flags of the command line; `module` is what the fork server loads after the workers' own."""
    from dropnorm_service import __main__ as service
    from dropnorm_service import assembly
    from dropnorm_service.workers import ForkServer

    paths = (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", ""))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    assembly.ForkServer = partial(ForkServer, (_WORKERS, module))  # type: ignore[attr-defined, assignment]
    return service.main()


def in_fork_server() -> bool:
    """Whether it is the fork server that loads a module."""
    return _WORKERS in sys.modules
