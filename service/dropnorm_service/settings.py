"""Settings of the service: flags, then `DROPNORM_*` environment, then a TOML file, then the defaults here."""

from __future__ import annotations

import argparse
import os
import tomllib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import quote, urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings import SettingsError as UnreadableValue

from dropnorm_service.redaction import hold_secrets
from dropnorm_service.setting_names import unknown_files, unknown_variables

Count = Annotated[int, Field(ge=1, le=4096)]
Seconds = Annotated[float, Field(gt=0.0, le=1e6)]


def _default_data_dir() -> Path:
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "dropnorm"


def _expand(path: Any) -> Any:
    if not isinstance(path, str | Path):
        return path
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise ValueError(f"{path}: there is no such user's home folder") from error


Folder = Annotated[Path, BeforeValidator(_expand)]


def _is_collector(url: str) -> str:
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        whole = False
    if not whole:
        raise ValueError(
            "a collector is http://host:port or https://host:port, as http://127.0.0.1:4317"
        )
    return url


class SettingsError(Exception):
    """Settings that cannot be used; the message names each."""


class Settings(BaseSettings):
    """How a service runs. A field is a flag (`--cpu-slots 2`), a variable (`DROPNORM_CPU_SLOTS=2`) and a TOML key."""

    model_config = SettingsConfigDict(
        env_prefix="DROPNORM_",
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        validate_default=True,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        cli_prog_name="dropnorm serve",
    )

    config: Folder | None = None
    """TOML file with settings; its keys are the names here, with underscores."""

    host: str = "127.0.0.1"
    """Address to listen on. One that other machines reach takes TLS and `authentication`, or `insecure`."""
    port: Annotated[int, Field(ge=0, le=65535)] = 50051
    """Port to listen on; 0 takes a free one and prints it."""
    insecure: bool = False
    """Listen to other machines without TLS or without authentication: the network keeps others out."""
    authentication: Literal["none", "tokens"] = "none"
    """Who may call: `none`, everybody who reaches the port, as admin; `tokens`, who has a token that
    `dropnorm tokens create` made."""
    tls_certificate: Folder | None = None
    """PEM file with the server's certificate and those between it and its root; absent: no TLS. It is read again
    when it changes, as the other two are."""
    tls_key: Folder | None = None
    """PEM file with the certificate's private key, not encrypted."""
    tls_client_ca: Folder | None = None
    """PEM file with the authorities whose certificates clients must show; absent: they show none."""
    secrets_dir: Folder | None = None
    """Folder whose files are settings, each by its name, as `database_url`: for what is nobody else's to read."""
    audit_log: Folder | None = None
    """File to which each event of the audit log is appended, as a line of JSON; absent: they are log records only."""

    data_dir: Folder = Field(default_factory=_default_data_dir)
    """Folder for the store, checkpoints, models, the data cache and MLflow's store, used by one service at a time, and
    made for its user alone when it is missing; absent: `$XDG_DATA_HOME/dropnorm`, else `~/.local/share/dropnorm`."""
    database_url: str | None = None
    """Where jobs are kept: `postgresql://user@host:5432/database`, with libpq's parameters such as `sslmode`, or
    `sqlite:////folder/jobs.db`; absent: SQLite in the data folder."""
    grace: Seconds = 30.0
    """Seconds a shutdown may take: running jobs write their checkpoints within them."""

    cpu_slots: Annotated[int, Field(ge=0, le=4096)] | None = None
    """Jobs that may train on the CPU at once; absent: one per four cores, at least one."""
    threads_per_slot: Count | None = None
    """CPU threads of each slot; absent: the cores shared out evenly."""
    gpus: Annotated[int, Field(ge=0, le=1024)] | None = None
    """GPUs to use, one slot each; absent: all there are."""
    heartbeat_timeout: Seconds = 60.0
    """Seconds without a sign of life after which a worker counts as hung and is killed; while it uses the CPU, as
    in one long operation, ten times as many."""
    checkpoint_interval: Seconds = 30.0
    """Seconds between two checkpoints of a running job."""
    max_attempts: Count = 3
    """Attempts lost in a row, without a step further, after which a job fails."""
    max_queued_jobs_per_user: Annotated[int, Field(ge=1)] = 10_000
    """Jobs of one user that may wait in the queue; further ones are refused until some have begun."""
    max_queued_jobs: Annotated[int, Field(ge=1)] = 100_000
    """Jobs of all users together that may wait in the queue."""
    max_calls: Annotated[int, Field(ge=1)] = 10_000
    """Calls that are served at once, streams among them; further ones are refused. Health checks do not count."""
    max_calls_per_user: Annotated[int, Field(ge=1)] = 2_000
    """Calls of one user that are served at once, streams among them; without tokens all are one user."""
    max_watches_per_user: Annotated[int, Field(ge=1)] = 1_000
    """Journals that one user may follow at once."""
    max_watches: Annotated[int, Field(ge=1)] = 5_000
    """Journals that all users together may follow at once."""
    max_heavy_calls_per_user: Count = 16
    """Plans, predictions, exports and downloads of exports that one user may have under way at once; further ones are
    refused."""
    max_creates_per_user: Count = 64
    """Requests for jobs of one user that may be checked at once, one after the other; further ones are refused."""
    disk_reserve: Annotated[int, Field(ge=0)] = 256 * 2**20
    """Bytes of the data folder's disk that are kept for the jobs that there are: with less left no job is accepted, and
    the service is not healthy."""
    max_job_seconds: Annotated[float, Field(ge=1.0, le=1e7)] | None = None
    """Seconds that a job may train, all attempts together; absent: any time. A spec's `compute.time_limit` may ask for
    less."""
    worker_memory_limit: Annotated[int, Field(ge=2**29)] | None = None
    """Bytes of the machine's memory that each worker may use, half a GiB at least; absent: nine tenths of the
    machine's, or the container's, shared out among the slots. Who needs more ends with OUT_OF_MEMORY."""
    plan_timeout: Seconds = 30.0
    """Seconds a plan may take, and as many it may wait for its turn before; users take turns. A request for a job is
    planned first."""
    predict_timeout: Seconds = 60.0
    """Seconds a prediction may take, and as many it may wait for its turn before; users take turns."""
    export_timeout: Seconds = 900.0
    """Seconds an export may take, and as many it may wait for its turn before; users take turns."""

    job_retention: Annotated[int, Field(ge=1, le=10**9)] | None = None
    """Seconds for which a job is kept after its end, unless it says so itself (`ttl`); then it is deleted, and its
    MLflow run stays. It holds for jobs that are accepted from then on; absent: for ever."""

    datasets_dir: Folder | None = None
    """Folder with data sets in their original formats, one subfolder each: mnist, fashion_mnist, cifar10."""
    dataset_mirrors: dict[str, str] = {}
    """URL of a folder to download from, by data set; downloads are checked against pinned SHA-256 sums."""

    max_dataset_bytes: Annotated[int, Field(ge=1)] = 4 * 2**30
    """Largest file of an uploaded data set in bytes."""
    max_datasets_bytes: Annotated[int, Field(ge=1)] = 64 * 2**30
    """Bytes that all uploaded data sets may take together, unfinished uploads and what is noted of each too."""
    max_datasets_bytes_per_user: Annotated[int, Field(ge=1)] | None = None
    """Bytes that the uploaded data sets of one user may take, unfinished uploads and what is noted of each too; absent:
    only all together are limited."""
    max_datasets: Annotated[int, Field(ge=1)] = 10_000
    """Uploaded data sets that there may be, of all users together, unfinished uploads too."""
    max_datasets_per_user: Annotated[int, Field(ge=1)] = 1_000
    """Uploaded data sets that one user may have, unfinished uploads too."""
    max_uploads_per_user: Count = 16
    """Files that one user may upload at once; reflection streams count too, from their first moment as uploads do."""
    max_dataset_samples: Annotated[int, Field(ge=1)] = 10**8
    """Samples that an uploaded data set may have."""
    max_dataset_values: Annotated[int, Field(ge=1)] = 2**24
    """Values that a sample of an uploaded data set may have."""
    upload_retention: Seconds = 86_400.0
    """Seconds that an upload which broke off is kept to be gone on with."""
    dataset_retention: Annotated[float, Field(gt=0.0, le=1e9)] | None = None
    """Seconds for which an uploaded data set is kept that no job refers to, neither one that waits or runs nor one
    that has ended and is not deleted; absent: for ever."""
    upload_idle_timeout: Seconds = 60.0
    """Seconds that an upload may send nothing; then it is broken off, and what has come is kept."""
    import_dirs: list[Folder] = []
    """Folders of this machine from which clients may make data sets by path; nothing else can be read so."""

    tracking: bool = True
    """Mirror jobs to MLflow."""
    mlflow_tracking_uri: str | None = None
    """MLflow tracking URI: a tracking server (http, https) or a database (sqlite, postgresql, mysql, mssql); absent:
    SQLite and a folder in the data folder."""

    metrics_host: str = "127.0.0.1"
    """Address of the metrics, which name no job and no user; whoever reaches it can read them. One that other machines
    reach is a warning in the log, as it needs neither TLS nor a token."""
    metrics_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    """Port on which Prometheus reads metrics at `/metrics`; 0 takes a free one and prints it; absent: none."""
    tracing_endpoint: Annotated[str, AfterValidator(_is_collector)] | None = None
    """URL to which traces are sent by OTLP over gRPC, `http://host:4317` or https; absent: none are made. Needs
    `pip install 'dropnorm[tracing]'`."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least grave log records that are written, to standard error."""
    log_format: Literal["json", "text"] = "json"
    """Form of log records."""
    exit_with_parent: bool = False
    """Stop when the process that started the service ends; embedded services use it."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags come before these; then arguments, the environment, the secrets, and the TOML file."""
        return (
            init_settings,
            env_settings,
            SecretsSettingsSource(settings_cls, env_prefix=""),
            TomlConfigSettingsSource(settings_cls),
        )

    @field_validator("dataset_mirrors")
    @classmethod
    def _is_public(cls, mirrors: dict[str, str]) -> dict[str, str]:
        for dataset, url in mirrors.items():
            if hold_secrets([url]):  # it would go to the workers, and into what they say
                raise ValueError(
                    f"the mirror of {dataset} has a password, and mirrors are asked without"
                )
        return mirrors

    @model_validator(mode="after")
    def _has_a_slot(self) -> Self:
        if self.cpu_slots == 0 and self.gpus == 0:
            raise ValueError(
                "cpu_slots and gpus are both 0, so no job could ever run; raise one of them"
            )
        return self

    @classmethod
    def load(cls, arguments: Sequence[str]) -> Settings:
        """Settings for a command line.

        Raises:
            SettingsError: a value is wrong, a file cannot be read, or a password stands on the command line; the
                message names each setting.
            SystemExit: after `--help`, or for a flag that does not exist.
        """
        if hold_secrets(arguments):
            raise SettingsError(
                "the command line has a password or a token, and everybody on this machine can read it there; put the "
                "setting into a file of its name in --secrets-dir, into the --config file, or into the environment"
            )
        path = _find("config", arguments)
        secrets = _find("secrets_dir", arguments) or _secrets_dir_in(path)

        class WithFile(cls):  # type: ignore[misc, valid-type]  # their names are known only now
            model_config = SettingsConfigDict(toml_file=path, secrets_dir=secrets)

        try:
            if path is not None and not path.is_file():
                raise SettingsError(f"config: there is no file {path}")
            if secrets is not None and not secrets.is_dir():
                raise SettingsError(f"secrets_dir: there is no folder {secrets}")
            _refuse_unknown(cls.model_fields, secrets)
            return WithFile(_cli_parse_args=list(arguments))
        except tomllib.TOMLDecodeError as error:
            raise SettingsError(f"config: {path} is not TOML: {error}") from error
        except UnicodeDecodeError as error:
            raise SettingsError(
                f"config: {path} is not TOML: byte {error.start + 1} is not UTF-8; save it as UTF-8"
            ) from error
        except OSError as error:
            named = error.filename or path
            setting = "config" if path is not None and str(path) == str(named) else "secrets_dir"
            raise SettingsError(f"{setting}: {named} cannot be read: {error.strerror}") from error
        except UnreadableValue as error:
            raise SettingsError(_explain_unreadable(error)) from error
        except ValidationError as error:
            raise SettingsError(_explain(error)) from error

    @property
    def store_url(self) -> str:
        """SQLAlchemy URL of the store."""
        return (
            self.database_url or f"sqlite+aiosqlite:///{quote(str(self.data_dir / 'dropnorm.db'))}"
        )


def _refuse_unknown(known: Collection[str], secrets: Path | None) -> None:
    """A misspelt name would leave the default in force, as no authentication or an empty store."""
    told = list(unknown_variables(known, os.environ))
    if secrets is not None:
        told += unknown_files(known, secrets)
    if told:
        raise SettingsError("; ".join(told))


def _find(setting: str, arguments: Sequence[str]) -> Path | None:
    """The path that the command line or the environment gives a setting; nothing may be there."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    variable = f"DROPNORM_{setting.upper()}"
    finder.add_argument(
        f"--{setting.replace('_', '-')}", dest="path", default=os.environ.get(variable)
    )
    name = finder.parse_known_args(arguments)[0].path
    try:
        path: Path | None = _expand(name)
    except ValueError as error:
        raise SettingsError(f"{setting}: {error}") from error
    return path


def _secrets_dir_in(file: Path | None) -> Path | None:
    """The folder that the TOML file names; what is wrong with the file is told when all of it is read."""
    if file is None:
        return None
    try:
        with file.open("rb") as opened:
            path: Path | None = _expand(tomllib.load(opened).get("secrets_dir"))
    except (OSError, ValueError):
        return None
    return path


def _explain_unreadable(error: UnreadableValue) -> str:
    """Of a variable or flag that is not in the form of its setting; such errors name it in words alone."""
    name = next((name for name in Settings.model_fields if name in str(error)), "settings")
    return (
        f"{name}: cannot be read; as a flag it is written NAME=VALUE, as a variable in JSON, "
        'as in DROPNORM_DATASET_MIRRORS=\'{"mnist": "https://example.org/mnist/"}\''
    )


def _explain(error: ValidationError) -> str:
    lines = []
    for line in error.errors(include_url=False):
        name = ".".join(str(part) for part in line["loc"]) or "settings"
        text = line["msg"].removeprefix("Value error, ")
        if line["type"] == "extra_forbidden":
            text = "there is no such setting; see `dropnorm serve --help`"
        lines.append(f"{name}: {text}")
    return "; ".join(lines)
