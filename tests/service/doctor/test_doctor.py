"""The doctor is shown machines with one thing broken each, and says which, and what to do."""

import asyncio
import http.server
import os
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from tests.certificates import Authority

from dropnorm_service.doctor import __main__ as doctor
from dropnorm_service.doctor import data_folder, installation, mlflow, places, ports, store, tls
from dropnorm_service.doctor.findings import Finding, Findings
from dropnorm_service.lock import exclusive
from dropnorm_service.settings import Settings
from dropnorm_service.store import SqlJobStore


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", port=0)


def changed(settings: Settings, **values: object) -> Settings:
    return Settings(**(settings.model_dump() | values))


def only(findings: Findings, status: str) -> Finding:
    """The single one of a status; every one that is not well says what to do."""
    found = list(findings)
    assert all(finding.do for finding in found if finding.status != "ok")
    [finding] = [finding for finding in found if finding.status == status]
    return finding


def all_well(findings: Findings) -> str:
    found = list(findings)
    assert {finding.status for finding in found} == {"ok"}, found
    return " ".join(finding.text for finding in found)


@pytest.fixture
def database(settings: Settings) -> Path:
    """A store as the service leaves it."""
    settings.data_dir.mkdir()

    async def make() -> None:
        async with await SqlJobStore.open(settings.store_url):
            pass

    asyncio.run(make())
    return settings.data_dir / "dropnorm.db"


def test_a_store_that_is_not_there_yet_is_well_and_stays_not_there(settings: Settings) -> None:
    assert "none yet" in all_well(store.look(settings))
    assert not settings.data_dir.exists()


def test_a_store_of_this_version_is_well_and_is_not_written(
    settings: Settings, database: Path
) -> None:
    before = (database.read_bytes(), sorted(settings.data_dir.iterdir()))
    assert "it has 0 jobs" in all_well(store.look(settings))
    assert (database.read_bytes(), sorted(settings.data_dir.iterdir())) == before


def test_a_damaged_store_is_told(settings: Settings, database: Path) -> None:
    with database.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(8192))
    finding = only(store.look(settings), "failure")
    assert "is damaged" in finding.text
    assert "restore the last backup" in finding.do


def test_so_is_one_that_is_no_database(settings: Settings, database: Path) -> None:
    database.write_text("what is this?" * 1000)
    assert "file is not a database" in only(store.look(settings), "failure").text


def test_a_store_of_a_newer_version_is_told(settings: Settings, database: Path) -> None:
    set_version(database, "9999_from_the_future")
    finding = only(store.look(settings), "failure")
    assert "9999_from_the_future" in finding.text
    assert "Run the newer version" in finding.do


def test_a_store_of_an_older_version_is_a_warning_and_is_not_migrated(
    settings: Settings, database: Path
) -> None:
    from alembic.script import ScriptDirectory

    from dropnorm_service.store.migrate import MIGRATIONS

    [first] = ScriptDirectory(str(MIGRATIONS)).get_bases()
    set_version(database, first)
    before = database.read_bytes()
    assert "older version" in only(store.look(settings), "warning").text
    assert database.read_bytes() == before


def set_version(database: Path, version: str) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", [version])


def test_a_database_server_that_is_away_is_told(settings: Settings, free_port: int) -> None:
    url = f"postgresql+asyncpg://ada:secret@127.0.0.1:{free_port}/jobs"
    finding = only(store.look(changed(settings, database_url=url)), "failure")
    assert "cannot be" in finding.text
    assert "secret" not in finding.text


def test_an_mlflow_that_is_away_is_told(settings: Settings, free_port: int) -> None:
    uri = f"http://ada:secret@127.0.0.1:{free_port}"
    finding = only(mlflow.look(changed(settings, mlflow_tracking_uri=uri)), "failure")
    assert f"127.0.0.1:{free_port} cannot be reached" in finding.text
    assert "secret" not in finding.text
    assert "--mlflow-tracking-uri" in finding.do


Serve = Callable[[bytes, str], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves an answer to every GET, with a date; the URL."""
    servers = []

    def start(body: bytes, date: str) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response_only(200)
                self.send_header("Date", date)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


NOW = ""  # told by the test when it runs


@pytest.mark.parametrize(
    ("body", "date", "status", "text"),
    [
        (b"3.17.2", NOW, "ok", "runs MLflow 3.17.2"),
        (b"2.9.0", NOW, "warning", "and the mirror 3."),
        (b"<html>", NOW, "failure", "is no MLflow tracking server"),
        (b"3.17.2", "Mon, 01 Jan 2024 00:00:00 GMT", "warning", "seconds apart"),
    ],
)
def test_an_mlflow_that_answers_says_what_it_is_and_when(
    settings: Settings, serve: Serve, body: bytes, date: str, status: str, text: str
) -> None:
    uri = serve(body, date or time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime()))
    assert text in only(mlflow.look(changed(settings, mlflow_tracking_uri=uri)), status).text


def test_a_damaged_mlflow_database_is_told(settings: Settings) -> None:
    assert "There is no" in all_well(mlflow.look(settings))
    settings.data_dir.mkdir()
    (settings.data_dir / "mlflow.db").write_text("no database" * 1000)
    assert "is damaged" in only(mlflow.look(settings), "failure").text


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only root can mount a disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_told_and_nothing_is_left_on_it(
    settings: Settings, small_disk: Path
) -> None:
    finding = only(data_folder.look(changed(settings, data_dir=small_disk)), "failure")
    assert "No space left on device" in finding.text
    assert "Make room" in finding.do
    assert not list(small_disk.iterdir())


def test_a_folder_that_is_a_file_is_told(settings: Settings) -> None:
    settings.data_dir.write_text("")
    assert "Not a directory" in only(data_folder.look(settings), "failure").text


def test_a_data_folder_is_left_as_it_was_and_who_runs_on_it_is_named(settings: Settings) -> None:
    all_well(data_folder.look(settings))
    assert not settings.data_dir.exists()
    with exclusive(settings.data_dir):
        before = sorted(settings.data_dir.iterdir())
        findings = list(data_folder.look(settings))
        assert any(f"process {os.getpid()}" in finding.text for finding in findings)
        assert sorted(settings.data_dir.iterdir()) == before


def test_a_data_folder_that_every_user_can_enter_is_a_warning(settings: Settings) -> None:
    with exclusive(settings.data_dir):
        all_well(data_folder.look(settings))
    settings.data_dir.chmod(0o755)
    assert "chmod 700" in only(data_folder.look(settings), "warning").do


def test_an_audit_log_that_cannot_be_written_is_told_and_none_is_made(
    settings: Settings, tmp_path: Path
) -> None:
    for path, told in (
        (tmp_path / "nowhere" / "audit.jsonl", "its folder is not there"),
        (tmp_path, "Is a directory"),
    ):
        finding = only(places.look(changed(settings, audit_log=path)), "failure")
        assert f"audit_log: {path} cannot be written: {told}" in finding.text
    path = tmp_path / "audit.jsonl"
    all_well(places.look(changed(settings, audit_log=path)))
    assert not path.exists()
    path.write_text("{}\n")
    all_well(places.look(changed(settings, audit_log=path)))
    assert path.read_text() == "{}\n"


def test_folders_of_data_sets_that_are_not_there_are_warned_of(
    settings: Settings, tmp_path: Path
) -> None:
    missing = tmp_path / "nowhere"
    for values in ({"datasets_dir": missing}, {"import_dirs": [tmp_path, missing]}):
        finding = only(places.look(changed(settings, **values)), "warning")
        assert f"{next(iter(values))}: {missing} cannot be read: No such file" in finding.text


def test_a_collector_that_is_away_is_a_warning(settings: Settings) -> None:
    with socket.socket() as collector:
        collector.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{collector.getsockname()[1]}"
        traced = changed(settings, tracing_endpoint=f"http://{address}")
        assert f"No collector answers at {address}" in only(places.look(traced), "warning").text
        collector.listen()
        assert "takes connections" in all_well(places.look(traced))


def test_a_port_that_another_program_has_is_told(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        for taken in ({"port": port}, {"metrics_port": port}):
            finding = only(ports.look(changed(settings, **taken)), "failure")
            assert f"127.0.0.1:{port} is in use by another program" in finding.text


def test_an_address_of_another_machine_is_told(settings: Settings) -> None:
    finding = only(ports.look(changed(settings, host="192.0.2.1", port=50051)), "failure")
    assert "cannot listen on 192.0.2.1:50051" in finding.text


def test_a_torch_that_breaks_is_told(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so: cannot open')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    finding = only(installation.look_at_devices(settings), "failure")
    assert "libcudart.so: cannot open" in finding.text
    assert "pip install" in finding.do


def test_gpus_that_are_not_there_are_told(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    finding = only(installation.look_at_devices(changed(settings, gpus=2)), "failure")
    assert "gpus is 2, and CUDA can use 0" in finding.text


def test_certificates_are_tried_and_their_end_is_told(settings: Settings, tmp_path: Path) -> None:
    authority = Authority(tmp_path)

    def with_tls(days: int, key: Path | None = None) -> Settings:
        pair = authority.issue("server", ends_in=timedelta(days=days))
        return changed(settings, tls_certificate=pair.certificate, tls_key=key or pair.key)

    assert "can be used and expires" in only(tls.look(with_tls(3)), "warning").text
    assert "can be used and expires" in all_well(tls.look(with_tls(60)))
    assert "expired" in only(tls.look(with_tls(-1)), "failure").text
    other = authority.issue("other").key
    assert "cannot be used together" in only(tls.look(with_tls(60, other)), "failure").text


def test_authorities_of_clients_that_are_expired_are_told(
    settings: Settings, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("server", ends_in=timedelta(days=60))
    expired = Authority(tmp_path, "expired", ends_in=timedelta(days=-1)).ca
    with_tls = changed(
        settings, tls_certificate=pair.certificate, tls_key=pair.key, tls_client_ca=expired
    )
    assert "no certificate in" in only(tls.look(with_tls), "failure").text
    expired.write_bytes(b"# K\xf6ln\n" + expired.read_bytes() + authority.ca.read_bytes())
    assert "1 cannot be used now" in only(tls.look(with_tls), "warning").text


def test_listening_to_everybody_is_refused_or_warned_of(settings: Settings) -> None:
    exposed = changed(settings, host="::")
    assert "--insecure" in only(tls.look(exposed), "failure").text
    exposed = changed(exposed, insecure=True)
    assert "dropnorm tokens create" in only(tls.look(exposed), "warning").do


def test_wrong_settings_are_told_and_end_the_examination(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert doctor.main(["--port", "99999"]) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert "port: Input should be less than or equal to 65535" in last


def test_a_check_that_breaks_is_a_finding_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(settings: Settings) -> Findings:
        raise RuntimeError("a mistake of ours")
        yield

    monkeypatch.setattr(doctor, "CHECKS", {"broken": broken, "ports": ports.look})
    findings = list(doctor.examine(["--data-dir", str(tmp_path / "data"), "--port", "0"]))
    assert "a mistake of ours" in findings[-2].text
    assert findings[-1].check == "ports"


@pytest.fixture
def free_port() -> Iterator[int]:
    """A port at which nobody listens, and which nobody else gets meanwhile."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield int(held.getsockname()[1])
