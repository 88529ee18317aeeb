"""`python -m dropnorm_service`: the service as a process."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Sequence

# Read when gRPC is loaded. Its core writes lines past the log, of what strangers send wrong, as many as they like.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from dropnorm_service import logs
from dropnorm_service.app import STARTUP_ERRORS, serve
from dropnorm_service.redaction import redact
from dropnorm_service.settings import Settings, SettingsError


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal; the exit status is 0 after a good end, 1 when it cannot start, 2 for wrong settings."""
    try:
        settings = Settings.load(sys.argv[1:] if arguments is None else arguments)
        logs.configure(settings)
        asyncio.run(serve(settings))
    except SettingsError as error:
        print(redact(f"dropnorm serve: {error}"), file=sys.stderr)
        return 2
    except STARTUP_ERRORS as error:
        print(redact(f"dropnorm serve: {error}"), file=sys.stderr)
        return 1
    except Exception:  # in the log, where no password is told
        logging.getLogger(__name__).critical("the service met an error of its own", exc_info=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
