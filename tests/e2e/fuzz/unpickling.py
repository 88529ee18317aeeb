"""Sees whether anybody unpickles: Python tells of each class that a pickle names (`pickle.find_class`)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_HOOK = """
import sys

def _record(event, details):
    if event == "pickle.find_class":
        with open({record!r}, "a") as file:
            print(*sys.argv[:3], *details, file=file)

sys.addaudithook(_record)
"""


class Unpickling:
    """What the processes that are started with `environment`, and those that they start, unpickle."""

    def __init__(self, folder: Path) -> None:
        self._record = folder / "unpickled"
        self._folder = folder / "hook"
        self._folder.mkdir()
        (self._folder / "sitecustomize.py").write_text(_HOOK.format(record=str(self._record)))

    @property
    def path(self) -> str:
        """The PYTHONPATH under which it is seen."""
        return os.pathsep.join(filter(None, [str(self._folder), os.environ.get("PYTHONPATH")]))

    def seen(self) -> str:
        """A line for each class that was looked up; empty: nobody has unpickled an object."""
        return self._record.read_text() if self._record.exists() else ""

    def prove(self) -> None:
        """See that it would be seen."""
        content = "import pickle, pathlib; pickle.loads(pickle.dumps(pathlib.PurePath()))"
        environment = {**os.environ, "PYTHONPATH": self.path}
        subprocess.run([sys.executable, "-P", "-c", content], check=True, env=environment)
        assert "PurePosixPath" in self.seen()
        self._record.unlink()
