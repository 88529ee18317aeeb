"""`dropnorm backup FOLDER`: copies all that a service keeps, while it runs, into a new folder.

The order of copying is what makes the copy whole. Rows refer to files, and a file is there before the first row that
refers to it, so the store is copied first: whatever its copy refers to was there at that moment, and a service removes
nothing until the backup is through (`lock.removing`). MLflow's own database follows after the store, since mirroring
what MLflow has already changes nothing, and what it lacked would be missing for ever. The files come last.

Workers go on to replace checkpoints meanwhile. A folder whose files vanish under the copy is looked at again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from dropnorm_service import logs
from dropnorm_service.durable import sync
from dropnorm_service.lock import copying
from dropnorm_service.redaction import redact
from dropnorm_service.settings import Settings, SettingsError
from dropnorm_service.store import InvalidDatabaseUrl
from dropnorm_service.store.backup import BackupFailed, copy_database, copy_sqlite

_PROGRAM = "dropnorm backup"
_FOLDERS = ("jobs", "uploads", "models", "mlflow-artifacts")
_UNFINISHED = Path("uploads") / "partial"
_MLFLOW = "mlflow.db"
_PASSES = 10


def main(arguments: Sequence[str] | None = None) -> int:
    """Make a backup; the exit status is 0 when it is whole, 1 when it could not be made, 2 for wrong usage."""
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        description="Copy all that a service keeps, while it runs, into a new folder.",
        epilog="The flags of `dropnorm serve` follow, so that the service's own store and data folder are found.",
        allow_abbrev=False,
    )
    parser.add_argument("folder", type=Path, help="where the backup goes; new, or empty")
    options, rest = parser.parse_known_args(arguments)
    try:
        settings = Settings.load(rest)
        logs.configure(settings)
        back_up(settings, options.folder)
    except (SettingsError, InvalidDatabaseUrl) as error:
        return _fail(error, 2)
    except (BackupFailed, OSError) as error:
        return _fail(error, 1)
    print(options.folder)
    return 0


def back_up(settings: Settings, folder: Path) -> None:
    """Copy the store and the data folder of a service.

    Args:
        settings: the service's.
        folder: empty, or new, and then made for its owner alone. Its `backup.json` is written last: a backup without
            it is not whole.

    Raises:
        BackupFailed: there is no whole copy; the message says why.
        InvalidDatabaseUrl: the URL of the store cannot be used.
        OSError: a file cannot be read or written.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise BackupFailed(f"{folder} is not empty; give a new folder for each backup")
    began = datetime.now(UTC)
    with copying(settings.data_dir):
        written = [copy_database(settings.store_url, folder)]
        if (settings.data_dir / _MLFLOW).exists():
            copy_sqlite(settings.data_dir / _MLFLOW, folder / _MLFLOW)
            written.append(folder / _MLFLOW)
        if (settings.data_dir / "store").exists():
            written.append(Path(shutil.copy2(settings.data_dir / "store", folder)))
        for name in _FOLDERS:
            written += _copy_folder(settings.data_dir, Path(name), folder)
    for path in written:
        sync(path)
    facts = {"time": began.isoformat(), "store": written[0].name, "files": len(written)}
    summary = folder / "backup.json"
    summary.write_text(json.dumps(facts) + "\n", "utf-8")
    sync(summary)
    sync(folder)


def _copy_folder(source: Path, name: Path, target: Path) -> list[Path]:
    """Copy what is in a folder; the copies."""
    copies: dict[Path, Path] = {}
    for _ in range(_PASSES):
        vanished: list[OSError] = []
        for path in _files(source / name, vanished):
            relative = path.relative_to(source)
            if relative in copies or relative.is_relative_to(_UNFINISHED):
                continue
            copy = target / relative
            copy.parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copy2(path, copy)
            except FileNotFoundError as error:
                vanished.append(error)
            else:
                copies[relative] = copy
        if not vanished:
            return list(copies.values())
    raise BackupFailed(f"the files of {source / name} change too fast to be copied")


def _files(folder: Path, vanished: list[OSError]) -> Iterator[Path]:
    """The files in a folder and those below it, without drafts, whose names begin with a dot.

    Args:
        folder: may be absent.
        vanished: gets what went while it was looked at: a newer one has come in its place, perhaps behind this look.

    Raises:
        OSError: a folder cannot be read.
    """

    def unless_vanished(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error
        vanished.append(error)

    if not folder.exists():
        return
    for parent, folders, names in os.walk(folder, onerror=unless_vanished):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in names if not name.startswith("."))


def _fail(error: Exception, status: int) -> int:
    print(redact(f"{_PROGRAM}: {error}"), file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
