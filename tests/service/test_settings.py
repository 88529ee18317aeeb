"""Settings: flags over environment over file over defaults, and errors that name the setting."""

import re
from pathlib import Path

import pytest

from dropnorm_service.setting_names import unknown_variables
from dropnorm_service.settings import Settings, SettingsError

DOCKER = Path(__file__).parents[2] / "docker"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    for name in ("CONFIG", "PORT", "CPU_SLOTS", "DATA_DIR"):
        monkeypatch.delenv(f"DROPNORM_{name}", raising=False)


def test_defaults_listen_on_loopback_and_keep_data_in_the_users_folder(tmp_path: Path) -> None:
    settings = Settings.load([])
    assert settings.host == "127.0.0.1"
    assert settings.data_dir == tmp_path / "dropnorm"
    assert settings.store_url == f"sqlite+aiosqlite:///{tmp_path}/dropnorm/dropnorm.db"


def test_flags_win_over_environment_and_environment_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "service.toml"
    file.write_text("port = 4001\ncpu_slots = 7\ngrace = 3\n")
    monkeypatch.setenv("DROPNORM_PORT", "4002")
    monkeypatch.setenv("DROPNORM_CPU_SLOTS", "8")
    settings = Settings.load(["--config", str(file), "--port", "4003"])
    assert (settings.port, settings.cpu_slots, settings.grace) == (4003, 8, 3.0)


def test_the_file_can_be_named_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "service.toml"
    file.write_text('[dataset_mirrors]\nmnist = "http://localhost:1/"\n')
    monkeypatch.setenv("DROPNORM_CONFIG", str(file))
    assert Settings.load([]).dataset_mirrors == {"mnist": "http://localhost:1/"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "70000"], "port: Input should be less than or equal to 65535"),
        (["--grace", "soon"], "grace: Input should be a valid number"),
        (["--cpu-slots", "0", "--gpus", "0"], "no job could ever run"),
        (["--config", "/nowhere.toml"], "config: there is no file /nowhere.toml"),
        (["--config", "/" + "x" * 300], "config: .* cannot be read: File name too long"),
    ],
)
def test_a_wrong_value_is_named(arguments: list[str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings.load(arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot = 1", "prot: there is no such setting"),
        ("port = ", "is not TOML"),
        ("port = 1 # caf\xe9", "config: .* is not TOML: byte 15 is not UTF-8"),
    ],
)
def test_a_wrong_file_is_explained(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "service.toml"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(SettingsError, match=message):
        Settings.load(["--config", str(file)])


def test_the_file_can_be_in_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.toml").write_text("port = 4001")
    assert Settings.load(["--config", "~/a.toml"]).port == 4001


def test_a_home_folder_of_nobody_is_named() -> None:
    for flag in ("--config", "--data-dir"):
        with pytest.raises(SettingsError, match="~nobody-here/x: there is no such user"):
            Settings.load([flag, "~nobody-here/x"])


def test_a_variable_that_is_not_in_the_form_of_its_setting_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DROPNORM_DATASET_MIRRORS", "notjson")
    with pytest.raises(SettingsError, match=r"dataset_mirrors: cannot be read; .* JSON"):
        Settings.load([])


def test_an_unknown_flag_ends_with_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        Settings.load(["--prot", "1"])
    assert ending.value.code == 2
    assert "--prot" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("DROPNORM_AUTHENTICATON", "no such setting; is DROPNORM_AUTHENTICATION meant"),
        ("DROPNORM_DATABASE", "no such setting; is DROPNORM_DATABASE_URL meant"),
        ("dropnorm_prot", "dropnorm_prot: there is no such setting; is DROPNORM_PORT meant"),
        ("DROPNORM_ZZZZ", "DROPNORM_ZZZZ: there is no such setting; correct the variable, or"),
    ],
)
def test_a_variable_that_is_misspelt_is_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str, message: str
) -> None:
    monkeypatch.setenv(variable, "tokens")
    with pytest.raises(SettingsError, match=message):
        Settings.load([])


def test_variables_of_clients_containers_and_other_services_are_no_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("ADDRESS", "TOKEN", "TOKEN_FILE", "TLS", "TLS_CA", "PUBLISH", "TEST_MNIST"):
        monkeypatch.setenv(f"DROPNORM_{name}", "x")
    of_links = {
        "SERVICE_HOST": "10.0.0.1",
        "SERVICE_PORT_GRPC": "50051",
        "PORT_50051_TCP_ADDR": "10.0.0.1",
        "POSTGRES_SERVICE_PORT": "5432",
        "POSTGRES_PORT": "tcp://10.0.0.1:5432",
    }
    for name, value in of_links.items():
        monkeypatch.setenv(f"DROPNORM_{name}", value)
    Settings.load([])


@pytest.mark.parametrize(
    "compose", sorted(DOCKER.glob("compose*.yaml")), ids=lambda path: path.name
)
def test_what_containers_are_given_are_settings(compose: Path) -> None:
    """Also what the images have in themselves, and what people give to docker-compose."""
    named = set(re.findall(r"DROPNORM_\w+", compose.read_text()))
    named |= set(re.findall(r"DROPNORM_\w+", (DOCKER / "Dockerfile").read_text()))
    assert list(unknown_variables(Settings.model_fields, dict.fromkeys(named, ""))) == []


def secrets_in(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).write_text("sqlite:////nowhere/jobs.db")
    return folder


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("databse_url", "databse_url is no setting, as each file there is; is database_url meant"),
        ("database_url.txt", r"database_url\.txt is no setting, .*; is database_url meant"),
        ("zzzz", "zzzz is no setting, as each file there is; others belong into another folder"),
    ],
)
def test_a_secret_that_is_misspelt_is_refused(tmp_path: Path, name: str, message: str) -> None:
    folder = secrets_in(tmp_path, name)
    with pytest.raises(SettingsError, match=f"secrets_dir: {folder}/{message}"):
        Settings.load(["--secrets-dir", str(folder)])


def test_what_kubernetes_and_others_have_in_a_folder_of_secrets_is_left_alone(
    tmp_path: Path,
) -> None:
    """As it mounts them: files are links into a hidden folder."""
    (tmp_path / "..2026_01_01").mkdir()
    secrets_in(tmp_path / "..2026_01_01", "database_url")
    (tmp_path / "..data").symlink_to("..2026_01_01")
    (tmp_path / "database_url").symlink_to("..data/database_url")
    (tmp_path / "kubernetes.io").mkdir()
    (tmp_path / "tls").mkdir()
    secrets_in(tmp_path, "redhat.repo", "ca.crt", ".hidden")
    settings = Settings.load(["--secrets-dir", str(tmp_path)])
    assert settings.database_url == "sqlite:////nowhere/jobs.db"
