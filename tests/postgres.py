"""A PostgreSQL server of the tests' own: one cluster for a run, a database for a test."""

from __future__ import annotations

import asyncio
import getpass
import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest
from tests.ports import free_port

_USER = "dropnorm"
_LANGUAGES_SINCE = 15  # the version that can sort by ICU's rules everywhere
_ROOM = 2**30
_DEBIAN = Path("/usr/lib/postgresql")


class Cluster:
    """A server on a port of its own, which a test may stop and start."""

    def __init__(self, binaries: Path) -> None:
        self.binaries = binaries
        # Not below pytest's folders, which PostgreSQL's own user may not enter when root runs the tests.
        self._folder = Path(tempfile.mkdtemp(prefix="dropnorm-postgres-", dir=_place()))
        self._account = "postgres" if os.geteuid() == 0 else None
        self._numbers = itertools.count(1)
        self.port = free_port()

    def make(self) -> None:
        """Make its files and start it."""
        if self._account:
            shutil.chown(self._folder, self._account)
        # Text sorts by the rules of a language, as in most real databases, unless a column says otherwise.
        languages = ["--locale-provider=icu", "--icu-locale=en"] if self._is_recent() else []
        self._run("initdb", "--no-sync", "--auth=trust", "--encoding=UTF8", *languages)
        self.start()
        self._sql(f"CREATE ROLE {_USER} LOGIN")

    def start(self) -> None:
        """Start it; returns when it takes connections."""
        # Processes are killed here, and no power is lost: what was written survives that without fsync.
        options = f"-p {self.port} -k {self._folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._run("pg_ctl", "start", "--wait", "--log", self._folder / "log", "--options", options)

    def stop(self, mode: str = "immediate") -> None:
        """Stop it; `immediate` is a crash, after which it has to recover."""
        self._run("pg_ctl", "stop", "--mode", mode)

    def restart(self) -> None:
        """Let it crash and come back."""
        self.stop()
        self.start()

    def save(self) -> None:
        """Let it crash, keep what it has then, and let it come back."""
        self._with_copy("data", "saved")

    def set_back(self) -> None:
        """Let it crash and come back as it was when it was saved, like a standby that had not received the rest."""
        self._with_copy("saved", "data")

    def _with_copy(self, source: str, target: str) -> None:
        self.stop()
        shutil.rmtree(self._folder / target, ignore_errors=True)
        places = [str(self._folder / name) for name in (source, target)]
        subprocess.run(["cp", "--archive", *places], check=True)  # owners too
        self.start()

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a new, empty database, which a role owns that may do nothing else; it goes in the end."""
        name = f"test_{next(self._numbers)}"
        self._sql(f"CREATE DATABASE {name} OWNER {_USER}")
        yield f"postgresql://{_USER}@127.0.0.1:{self.port}/{name}"
        self._sql(f"DROP DATABASE {name} WITH (FORCE)")

    def remove(self) -> None:
        if (self._folder / "data" / "postmaster.pid").exists():
            self.stop()
        shutil.rmtree(self._folder)

    def _is_recent(self) -> bool:
        text = subprocess.check_output([self.binaries / "initdb", "--version"], text=True)
        return int(text.split()[2].partition(".")[0]) >= _LANGUAGES_SINCE

    def _sql(self, statement: str) -> None:
        async def execute() -> None:
            connection = await asyncpg.connect(
                host=str(self._folder),
                port=self.port,
                user=self._account or getpass.getuser(),
                database="postgres",
            )
            try:
                await connection.execute(statement)
            finally:
                await connection.close()

        with ThreadPoolExecutor(1) as thread:  # the caller's may have a loop of its own
            thread.submit(asyncio.run, execute()).result()

    def _as_account(self) -> Sequence[str]:
        # Not by subprocess's own means: for another user it forks, and gRPC's threads do not outlive a fork in peace.
        if self._account is None:
            return ()
        return ("setpriv", f"--reuid={self._account}", f"--regid={self._account}", "--clear-groups")

    def _run(self, program: str, *arguments: object) -> None:
        said = self._folder / "commands.log"
        with said.open("a") as log:  # a server inherits it; a pipe would never come to its end
            done = subprocess.run(
                [*self._as_account(), str(self.binaries / program), *map(str, arguments)],
                cwd=self._folder,
                env={
                    "PATH": os.environ["PATH"],
                    "PGDATA": str(self._folder / "data"),
                    "LC_ALL": "C",
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=60,
            )
        assert done.returncode == 0, said.read_text()


class NoPostgres(Exception):
    """There is no server to run on this machine."""


@contextmanager
def running() -> Iterator[Cluster]:
    """A server that runs within the block.

    Raises:
        NoPostgres: its programs are not installed.
    """
    binaries = _find_binaries()
    if binaries is None:
        raise NoPostgres(
            "there is no PostgreSQL server on this machine (on Debian and Ubuntu: apt install postgresql)"
        )
    cluster = Cluster(binaries)
    try:
        cluster.make()
        yield cluster
    finally:
        cluster.remove()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A running server, shared by the tests of a run."""
    try:
        with running() as cluster:
            yield cluster
    except NoPostgres as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture
def postgres_url(postgres: Cluster) -> Iterator[str]:
    """An empty database."""
    with postgres.database() as url:
        yield url


def _find_binaries() -> Path | None:
    """The folder with the server's programs, the newest there is."""
    for folder in _candidates():
        # What stands on the PATH may be a link to where the rest is.
        place = (folder / "initdb").resolve().parent
        if all((place / name).exists() for name in ("initdb", "pg_ctl", "pg_dump")):
            return place
    return None


def _candidates() -> Sequence[Path]:
    found = [Path(program).parent for name in ("initdb",) if (program := shutil.which(name))]
    if config := shutil.which("pg_config"):
        found.append(Path(subprocess.check_output([config, "--bindir"], text=True).strip()))
    versions = _DEBIAN.glob("*/bin") if _DEBIAN.exists() else []
    return [*found, *sorted(versions, key=lambda each: float(each.parent.name), reverse=True)]


def _place() -> Path | None:
    """Where files may be that nobody has to keep: memory, if there is enough; None: where temporary files are."""
    memory = Path("/dev/shm")  # noqa: S108 - the files there have a folder of their own
    enough = memory.is_dir() and shutil.disk_usage(memory).free > _ROOM
    return memory if enough else None
