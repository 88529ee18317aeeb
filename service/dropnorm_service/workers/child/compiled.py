"""Where torch.compile keeps what it has compiled.

By itself it does so in a folder for temporary files that all jobs share, which grows with each network. With a job's
checkpoints it goes when they go, and an attempt that goes on from them need not compile again. What stays in the
shared folder are the compiler's precompiled headers, which no network changes.
"""

from __future__ import annotations

import os
import shutil

from dropnorm_service.training import Checkpoints

_FOLDER = "compiled"


def keep_compiled(checkpoints: Checkpoints) -> None:
    """Let this process keep what it compiles with the checkpoints of its job.

    What an attempt left that came to no checkpoint goes: it may have been killed while it compiled, and torch takes
    whatever is there for whole.
    """
    folder = checkpoints.folder / _FOLDER
    if checkpoints.empty:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
