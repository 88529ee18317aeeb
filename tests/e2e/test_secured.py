"""A service as a team runs it: TLS, tokens and an audit log, used by SDK and command; and no secret anywhere."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.certificates import Authority
from tests.e2e.conftest import SMALL
from tests.e2e.servers import Server, eventually, long, spec, states
from tests.http2 import answer_begun, strange

import dropnorm as dn

PLANTED = "planted-secret"
FOR_THE_SERVER = ("DROPNORM_TOKEN", "PGPASSWORD", "HF_TOKEN")


@dataclass
class Secured:
    """A server, and what its clients have."""

    server: Server
    folder: Path
    authority: Authority
    audit_log: Path
    told: list[str] = field(default_factory=list)
    """Every token that was made."""

    @property
    def address(self) -> str:
        return self.server.address.replace("127.0.0.1", "localhost")

    @property
    def tls(self) -> dn.TLS:
        return dn.TLS(ca=self.authority.ca)

    def run(self, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        """The `dropnorm` command."""
        command = [sys.executable, "-m", "dropnorm.cli", *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, env=os.environ | environment, timeout=110
        )

    def tokens(self, *arguments: object) -> Any:
        """`dropnorm tokens` with --json, beside the running service; what it says."""
        done = self.run_tokens(*arguments)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def run_tokens(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        flags = ("--json", "--data-dir", self.server.data_dir, "--audit-log", self.audit_log)
        return self.run("tokens", *arguments, *flags)

    def audited(self) -> list[Any]:
        """The records of the audit log."""
        return [json.loads(line) for line in self.audit_log.read_text().splitlines()]

    def token(self, user: str, role: str) -> tuple[str, str]:
        """A new token's id and text."""
        [made] = self.tokens("create", "--user", user, "--role", role)
        self.told.append(made["token"])
        return made["id"], made["token"]


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    authority = Authority(folder)
    pair, audit_log = authority.issue("server"), folder / "audit.jsonl"
    files = {"tls-certificate": pair.certificate, "tls-key": pair.key, "audit-log": audit_log}
    flags = [part for name, path in files.items() for part in (f"--{name}", str(path))]
    with pytest.MonkeyPatch.context() as patch:
        for name in FOR_THE_SERVER:
            patch.setenv(name, PLANTED)
        server = Server(folder / "data", *SMALL, "--authentication", "tokens", *flags).start()
    yield Secured(server, folder, authority, audit_log)
    server.end()


@pytest.fixture(scope="module")
def ada(secured: Secured) -> str:
    """Ada's token."""
    return secured.token("ada", "user")[1]


async def test_both_clients_train_with_a_token_over_tls(secured: Secured, ada: str):
    with dn.Client(secured.address, token=ada, tls=secured.tls) as client:
        job = client.train(spec(epochs=1), job_id="by-ada")
        assert job.result(timeout=100).test.accuracy is not None
    async with dn.AsyncClient(secured.address, token=ada, tls=secured.tls) as other:
        assert (await other.job("by-ada")).state is dn.State.SUCCEEDED


def test_the_command_finds_token_and_authorities(secured: Secured, ada: str):
    file = secured.folder / "token"
    file.write_text(f"{ada}\n")
    options = ("--token-file", file, "--tls-ca", secured.authority.ca)
    by_options = secured.run(*options, "workers", "--address", secured.address, "--json")
    assert json.loads(by_options.stdout)["name"] == "workers/local", by_options.stderr

    environment = {
        "DROPNORM_ADDRESS": secured.address,
        "DROPNORM_TLS_CA": str(secured.authority.ca),
    }
    by_environment = secured.run("workers", "--json", DROPNORM_TOKEN=ada, **environment)
    assert by_environment.stdout == by_options.stdout
    unknown = secured.run("workers", "--json", **environment)
    assert (unknown.returncode, "dropnorm tokens create" in unknown.stderr) == (8, True)


def test_who_cannot_be_let_in_is_told_why(secured: Secured, ada: str, tmp_path: Path):
    address = (
        secured.server.address
    )  # a name may have several, and gRPC tells of the last one alone
    doubting = dn.TLS(ca=Authority(tmp_path).ca)
    _, viewer = secured.token("eve", "viewer")
    with (
        dn.Client(address, tls=secured.tls) as client,
        pytest.raises(dn.Unauthenticated, match="needs a valid token"),
    ):
        client.workers()
    with (
        dn.Client(address, token=ada) as client,
        pytest.raises(dn.Unavailable, match="may speak TLS alone"),
    ):
        client.workers()
    with (
        dn.Client(address, token=ada, tls=doubting) as client,
        pytest.raises(dn.Unavailable, match="certificate that is not trusted here"),
    ):
        client.workers()
    with (
        dn.Client(address, token=viewer, tls=secured.tls) as client,
        pytest.raises(dn.PermissionDenied, match="CreateTrainingJob needs the role user"),
    ):
        client.train(spec())


def test_a_watch_is_cut_when_the_command_revokes_its_token(secured: Secured, ada: str):
    token_id, bearer = secured.token("ada", "user")
    with (
        dn.Client(secured.address, token=ada, tls=secured.tls) as client,
        dn.Client(secured.address, token=bearer, tls=secured.tls) as revoked,
    ):
        job = client.train(long())
        events = revoked.job(job.id).watch()
        next(events)
        [shown] = secured.tokens("revoke", token_id)
        assert shown["state"] == "revoked"
        with pytest.raises(dn.Unauthenticated):
            list(events)
        job.cancel()
        with pytest.raises(dn.JobCancelled):
            job.result(timeout=120)
    listed = {each["id"]: each for each in secured.tokens("list")}
    assert listed[token_id]["state"] == "revoked"
    assert "token" not in listed[token_id]


WORKERS = b"/dropnorm.v1.TrainingService/ListWorkers"


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        (b"/\xff\xfe/x", {}),
        (WORKERS, {b"x-name": b"\xff" * 7000}),
        (WORKERS, {b"authorization": b"Bearer \xe9"}),
        (WORKERS, {b"grpc-timeout": b"\xff"}),
        (WORKERS, {b"grpc-encoding": b"nonsense"}),
    ],
)
def test_what_strangers_call_ends_nothing_and_leaves_no_line_but_audits(
    secured: Secured, ada: str, method: bytes, headers: dict[bytes, bytes]
):
    before = len(secured.server.log)
    with encrypted(secured) as connection:
        strange(connection, method, headers)
        answer_begun(connection)
    assert_well(secured, ada, before)


def test_so_do_handshakes_that_fail_and_bytes_that_cannot_be_decrypted(secured: Secured, ada: str):
    before = len(secured.server.log)
    with socket.create_connection(("127.0.0.1", secured.server.port), timeout=30) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert until_hung_up(plain)
    with encrypted(secured) as connection:
        strange(connection, WORKERS, {})
        answer_begun(connection)
        with socket.socket(fileno=connection.detach()) as beneath:
            beneath.settimeout(30)
            beneath.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
            assert until_hung_up(beneath)
    assert_well(secured, ada, before)


def encrypted(secured: Secured) -> ssl.SSLSocket:
    """A connection on which HTTP/2 can be spoken by hand."""
    context = ssl.create_default_context(cafile=str(secured.authority.ca))
    context.set_alpn_protocols(["h2"])
    plain = socket.create_connection(("127.0.0.1", secured.server.port), timeout=30)
    return context.wrap_socket(plain, server_hostname="localhost")


def until_hung_up(connection: socket.socket) -> bool:
    """What is still said is of no interest."""
    with contextlib.suppress(ConnectionError):
        while connection.recv(4096):
            pass
    return True


def assert_well(secured: Secured, ada: str, before: int) -> None:
    """The service answers, and the log has had no record since but of the audit log."""
    with dn.Client(secured.address, token=ada, tls=secured.tls) as client:
        assert client.workers()
    told = [json.loads(line) for line in secured.server.log[before:].splitlines()]
    assert {each["logger"] for each in told} <= {"dropnorm.audit"}


def test_a_new_certificate_is_served_without_a_restart(secured: Secured, ada: str):
    with dn.Client(secured.address, token=ada, tls=secured.tls) as old:
        job = old.train(long())
        events = job.watch()
        next(events)
        new = Authority(secured.folder, "new")
        new.issue("server")
        with dn.Client(secured.address, token=ada, tls=dn.TLS(ca=new.ca)) as fresh:
            assert fresh.workers()
        job.cancel()
        assert states(list(events))[-1] is dn.State.CANCELLED
    secured.authority.issue("server")


def test_every_change_is_in_the_audit_log(secured: Secured, ada: str):
    with dn.Client(secured.address, token=ada, tls=secured.tls) as client:
        job = client.train(long(), job_id="audited")
        job.cancel()
    entries = secured.audited()
    mine = [each for each in entries if each["resource"] == "trainingJobs/audited"]

    assert [(each["action"], each["outcome"], each["user"]) for each in mine] == [
        ("CreateTrainingJob", "OK", "ada"),
        ("CancelTrainingJob", "OK", "ada"),
    ]
    assert all(each["token"] == ada.split("_")[1] and each["request_id"] for each in mine)
    made = [each for each in entries if (each["action"], each["outcome"]) == ("CreateToken", "OK")]
    assert [each["resource"].removeprefix("tokens/") for each in made] == [
        token.split("_")[1] for token in secured.told
    ]


def test_commands_about_tokens_that_are_refused_are_in_the_audit_log(secured: Secured, ada: str):
    before = len(secured.audited())
    stranger = f"dn_{'0' * 12}_{PLANTED}{'x' * (43 - len(PLANTED))}"
    for arguments, told in (
        (("create", "--user", "no name", "--role", "user"), "a user is a letter or digit"),
        (("revoke", stranger[-43:]), "that is no token's id"),
        (("revoke", stranger), f"there is no token {'0' * 12}"),
    ):
        refused = secured.run_tokens(*arguments)
        assert (refused.returncode, told in refused.stderr) == (2, True), refused.stderr
        assert PLANTED not in refused.stderr
    created, unknown, whole = secured.audited()[before:]
    assert (created["action"], created["outcome"]) == ("CreateToken", "INVALID_ARGUMENT")
    assert (created["of_user"], created["of_role"]) == ("no name", "user")
    assert "a user is a letter or digit" in created["why"]
    assert created["user"]
    assert [each["resource"] for each in (unknown, whole)] == [
        "",
        f"tokens/{'0' * 12}",
    ]
    assert {each["action"] for each in (unknown, whole)} == {"RevokeToken"}


def test_no_token_is_in_any_file_or_process(secured: Secured, ada: str):
    """Last, once all of them were used: the store, MLflow's store, logs, processes and their environments."""
    with dn.Client(secured.address, token=ada, tls=secured.tls) as client:
        eventually(lambda: client.job("by-ada").snapshot.mlflow_run_id, "MLflow has the run")
        assert ada not in f"{client!r} {vars(client)}"
    secrets = [token.encode() for token in secured.told] + [PLANTED.encode()]
    files = [path for path in secured.server.data_dir.rglob("*") if path.is_file()]
    assert any(path.name == "mlflow.db" for path in files)
    for path in [*files, secured.audit_log]:
        content = path.read_bytes()
        assert not any(secret in content for secret in secrets), path
    below = psutil.Process(secured.server.process.pid).children(recursive=True)
    assert len(below) >= 3  # the fork server, a worker, a mirror
    for process in below:
        assert_clean(process, secrets, "PGPASSWORD")
    assert not any(secret in command_line(secured.server.process.pid) for secret in secrets)


def test_passwords_of_databases_stay_with_the_server(tmp_path: Path, postgres_url: str):
    """In the settings: a database with a password, and an MLflow server with one that cannot be reached."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "database_url").write_text(postgres_url.replace("@", f":{PLANTED}@"))
    (secrets / "mlflow_tracking_uri").write_text(f"http://mirror:{PLANTED}@127.0.0.1:9")
    server = Server(tmp_path / "data", *SMALL, "--secrets-dir", str(secrets)).start()
    try:
        with server.client() as client:
            client.train(spec(epochs=1)).result(timeout=100)
        eventually(lambda: "MLflow" in server.log, "the mirror has met its server")
        served = psutil.Process(server.process.pid)
        for process in (served, *served.children(recursive=True)):
            assert_clean(process, [PLANTED.encode()])
    finally:
        server.end()
    files = [path for path in server.data_dir.rglob("*") if path.is_file()]
    assert not [path for path in files if PLANTED.encode() in path.read_bytes()]


def command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def assert_clean(process: psutil.Process, secrets: list[bytes], *allowed: str) -> None:
    """No secret is in a process's command line or environment, but in variables that its libraries need."""
    try:
        pieces = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
        pieces.append(command_line(process.pid))
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return
    for piece in pieces:
        if piece.partition(b"=")[0].decode(errors="replace") not in allowed:
            assert not any(secret in piece for secret in secrets), piece
