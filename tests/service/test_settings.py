"""Settings: flags over environment over file over defaults, and errors that name the setting."""

from pathlib import Path

import pytest

from dropnorm_service.settings import Settings, SettingsError


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
