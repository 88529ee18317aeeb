"""Secrets stay out of texts for people, and out of the environment of processes that do not need them."""

import json
import logging
import stat
from pathlib import Path

import pytest

from dropnorm_service import audit, logs
from dropnorm_service.environment import mirror_environment, worker_environment
from dropnorm_service.redaction import hold_secrets, redact
from dropnorm_service.settings import Settings, SettingsError

pytestmark = pytest.mark.usefixtures("garbage_stays")

TOKEN = "dn_0123456789ab_" + "x" * 43


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://ada:pw@host:5432/jobs", "postgresql://ada:***@host:5432/jobs"),
        ("to https://:pw@host/ it went", "to https://:***@host/ it went"),
        ("a://u:p/w@h b://v:q@r@i", "a://u:***@h b://v:***@i"),
        ("postgresql://h/d?user=a&password=pw&x=1", "postgresql://h/d?user=a&password=***&x=1"),
        ("postgresql://u@h/d?sslpassword=pw&x=1", "postgresql://u@h/d?sslpassword=***&x=1"),
        ("postgresql://h/d?password=it's", "postgresql://h/d?password=***"),
        ("postgresql://u:it's@h/d", "postgresql://u:***@h/d"),
        ('postgresql://u:a"b@h/d', "postgresql://u:***@h/d"),
        ("postgresql://u:my pass@h/d", "postgresql://u:***@h/d"),
        (
            "mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BPWD%3Dpw&x=1",
            "mssql+pyodbc:///?odbc_connect=***&x=1",
        ),
        (
            "mssql:///?odbc_connect=Driver={ODBC 18};PWD=pw",
            "mssql:///?odbc_connect=*** 18};PWD=***",
        ),
        (f"Bearer {TOKEN} was given", "Bearer dn_0123456789ab_*** was given"),
        ("http://host:80/path and a@b.c", "http://host:80/path and a@b.c"),
        ("http://host:80 is busy, ask a@b.c", "http://host:80 is busy, ask a@b.c"),
        ("http://host: no answer, ask a@b.c", "http://host: no answer, ask a@b.c"),
        ('{"a": "http://host:x", "b": "a@b"}', '{"a": "http://host:x", "b": "a@b"}'),
    ],
)
def test_a_secret_is_taken_out(text: str, shown: str):
    assert redact(text) == shown
    assert hold_secrets(["--flag", text]) is (text != shown)


@pytest.mark.parametrize("form", ["json", "text"])
def test_no_log_record_has_one(form: str, capfd: pytest.CaptureFixture[str]):
    logs.configure(Settings.load(["--log-format", form]))
    try:
        raise OSError("cannot reach postgresql://ada:planted@host/jobs")
    except OSError:
        extra = {"uri": "http://u:planted@h"}
        logging.getLogger("dropnorm.test").exception("token %s", TOKEN, extra=extra)
    said = capfd.readouterr().err
    assert "planted" not in said
    assert "x" * 43 not in said
    assert "ada:***@host" in said


@pytest.mark.parametrize("sent", ['?token=a"b', "x;password=\\", '?secret=",1,"', "?pwd={\\"])
def test_what_a_caller_sends_that_looks_like_a_secret_breaks_no_line(
    sent: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
):
    path = tmp_path / "audit.jsonl"
    log = logging.getLogger(audit.LOGGER)
    try:
        logs.configure(Settings(audit_log=path, log_format="json"))
        audit.record("Act", sent, "OK", user="ada", token="t", peer="here")
        extra = {"details": {"said": [sent, 1, None]}, "path": Path(sent)}
        logging.getLogger("dropnorm.test").warning("got %s", sent, extra=extra)
    finally:
        for handler in log.handlers:
            handler.close()
        log.handlers.clear()
    [audited] = path.read_text().splitlines()
    assert json.loads(audited)["resource"] == redact(sent)
    entry = json.loads(capfd.readouterr().err.splitlines()[-1])
    assert entry["message"] == f"got {redact(sent)}"
    assert entry["details"] == {"said": [redact(sent), 1, None]}


def test_the_audit_log_is_a_file_of_its_owner_that_only_grows(tmp_path: Path):
    path = tmp_path / "audit.jsonl"
    path.write_text('{"older": true}\n')
    path.unlink()
    log = logging.getLogger(audit.LOGGER)
    try:
        for number in range(2):
            logs.configure(Settings(audit_log=path, log_level="error"))
            audit.record("Act", f"things/{number}", "OK", user="ada", token="t", peer="here")
            log.handlers[0].close()
    finally:
        log.handlers.clear()
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    assert [entry["resource"] for entry in entries] == ["things/0", "things/1"]
    assert entries[0]["user"] == "ada"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_audit_log_that_cannot_be_written_is_named():
    with pytest.raises(SettingsError, match="audit_log: /nowhere/audit cannot be written: No such"):
        logs.configure(Settings.load(["--audit-log", "/nowhere/audit"]))


OF_STORES = {
    "AWS_SECRET_ACCESS_KEY": "planted",
    "AZURE_STORAGE_KEY": "planted",
    "MLFLOW_TRACKING_PASSWORD": "planted",
    "MYSQL_PWD": "planted",
    "PGPASSWORD": "planted",
    "PGSERVICEFILE": "planted",
}
FOR_NOBODY = {
    "DROPNORM_DATABASE_URL": "planted",
    "DROPNORM_TOKEN": "planted",
    "DB_PASS": "planted",
    "DB_PWD": "planted",
    "HF_TOKEN": "planted",
    "OTEL_EXPORTER_OTLP_HEADERS": "planted",
    "REDIS_URL": "redis://u:planted@host",
    "SIGNING_KEY": "planted",
    "SSH_AUTH_SOCK": "planted",
}
NEEDED = {
    "CUDA_VISIBLE_DEVICES": "0",
    "HF_HOME": "/cache",
    "HTTPS_PROXY": "http://u:pw@proxy:3128",
    "LD_LIBRARY_PATH": "/lib",
    "OLDPWD": "/",
    "SSL_CERT_FILE": "/ca.pem",
    "XDG_CACHE_HOME": "/cache",
}


def test_children_know_only_the_secrets_they_need(monkeypatch: pytest.MonkeyPatch):
    planted = OF_STORES | FOR_NOBODY | NEEDED
    for name, value in planted.items():
        monkeypatch.setenv(name, value)

    worker, mirror = worker_environment(), mirror_environment()
    assert {name: worker[name] for name in planted if name in worker} == NEEDED
    assert {name: mirror[name] for name in planted if name in mirror} == OF_STORES | NEEDED


def test_a_secret_is_a_file_of_its_settings_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "database_url").write_text("postgresql://ada:pw@host/jobs\n")
    (secrets / "port").write_text("4001")
    (secrets / "unrelated.txt").write_text("x")
    config = tmp_path / "service.toml"
    config.write_text(f"port = 4000\ngrace = 3\nsecrets_dir = '{secrets}'\n")

    settings = Settings.load(["--config", str(config)])
    assert settings.database_url == "postgresql://ada:pw@host/jobs"
    assert (settings.port, settings.grace) == (4001, 3.0)

    monkeypatch.setenv("DROPNORM_SECRETS_DIR", str(secrets))
    monkeypatch.setenv("DROPNORM_PORT", "4002")
    assert Settings.load([]).port == 4002
    assert Settings.load(["--secrets-dir", str(secrets), "--port", "4003"]).port == 4003


def test_a_secrets_folder_that_is_not_there_is_named():
    with pytest.raises(SettingsError, match="secrets_dir: there is no folder /nowhere"):
        Settings.load(["--secrets-dir", "/nowhere"])


def test_a_mirror_with_a_password_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DROPNORM_DATASET_MIRRORS", '{"mnist": "https://u:planted@host/"}')
    with pytest.raises(SettingsError, match="dataset_mirrors: the mirror of mnist") as caught:
        Settings.load([])
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize("flag", ["--database-url", "--mlflow-tracking-uri"])
def test_a_password_on_the_command_line_is_refused(flag: str):
    with pytest.raises(SettingsError, match="the command line has a password") as caught:
        Settings.load([flag, "postgresql://ada:planted@host/jobs"])
    assert "planted" not in str(caught.value)


def test_a_text_full_of_places_where_a_password_could_begin_is_read_in_no_time_to_speak_of():
    text = "://a:" * 80_000  # each of which, read to the end of the text, would take minutes
    assert redact(text) == text
