"""Where torch.compile keeps what it has compiled, and what of it is trusted.

By itself it does so in a folder for temporary files that all jobs share, which grows with each network. With a job's
checkpoints it goes when they go, and an attempt that goes on from them need not compile again.

A compiler writes in place, and torch takes whatever is there for whole. What a kill or a loss of power has cut off
would fail each attempt, or end it by a signal. So what there is at a checkpoint is listed with its checksums, and
whatever else the next attempt finds goes, to be compiled again.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from dropnorm_service.durable import sha256_of
from dropnorm_service.training import Checkpoints
from dropnorm_service.training._files import write_json

log = logging.getLogger(__name__)

_FOLDER = "compiled"
_LIST = "compiled.json"
"""Beside the folder: SHA-256 (hex) by the path in it."""


class Compiled:
    """What the attempts of one job have compiled.

    Args:
        checkpoints: the job's, with which it lies.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.folder = checkpoints.folder / _FOLDER
        self._list = checkpoints.folder / _LIST
        self._whole: dict[str, str] = {}

    def trust_what_is_listed(self) -> None:
        """Remove all but what is as it was when it was listed.

        Raises:
            OSError: it cannot be read or removed.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        listed = self._read()
        for name, path in self._files().items():
            if path.is_file() and listed.get(name) == sha256_of(path):
                self._whole[name] = listed[name]
            else:
                path.unlink()

    def list_whole(self) -> None:
        """List what has come since the last time, durably. Between two steps, when nothing is being compiled."""
        files = self._files()
        try:
            new = {name: sha256_of(path) for name, path in files.items() if name not in self._whole}
            if new:
                write_json(self._list, self._whole | new)
        except OSError as error:
            why = error.strerror or type(error).__name__
            log.warning(
                "what is compiled cannot be listed (%s); a resumption compiles it anew", why
            )
        else:
            self._whole |= new

    def _files(self) -> dict[str, Path]:
        found = sorted(path for path in self.folder.rglob("*") if not path.is_dir())
        return {str(path.relative_to(self.folder)): path for path in found}

    def _read(self) -> dict[str, str]:
        """The list; a damaged one lists nothing."""
        try:
            listed = json.loads(self._list.read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return listed if isinstance(listed, dict) else {}


def keep_compiled(checkpoints: Checkpoints) -> Compiled:
    """Let this process keep what it compiles with the checkpoints of its job.

    The compiler's precompiled headers would still lie in the folder that all jobs share, where one that is cut off
    fails every job from then on. Doing without costs three seconds a library, and they cost ten at first.
    """
    from torch._inductor import config

    compiled = Compiled(checkpoints)
    compiled.trust_what_is_listed()
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(compiled.folder)
    config.cpp_cache_precompile_headers = False
    return compiled
