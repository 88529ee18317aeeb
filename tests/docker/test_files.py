"""Compose files are read by each Compose that is here; images keep no secret and no tool of attack."""

import json
import shutil

import pytest
import yaml
from tests.docker.engine import ROOT, Composition, compose_commands, inspect, run

pytestmark = pytest.mark.docker

COMBINATIONS = (
    ["compose.yaml"],
    ["compose.yaml", "compose.gpu.yaml"],
    ["compose.dev.yaml"],
    ["compose.dev.yaml", "compose.gpu.yaml"],
)


@pytest.mark.parametrize("files", COMBINATIONS, ids=" ".join)
def test_each_compose_reads_the_files(files: list[str], tmp_path) -> None:
    Composition("compose.yaml", tmp_path).make_secrets()
    flags = [flag for file in files for flag in ("--file", f"docker/{file}")]
    for command in compose_commands():
        said = run(*command, *flags, "config", env={"DROPNORM_SECRETS": str(tmp_path)})
        assert ("nvidia" in said) == ("compose.gpu.yaml" in files)


def test_the_service_for_one_person_shares_nothing_with_the_teams() -> None:
    """Neither a volume that it might remove nor an address that somebody opened to others."""
    volumes, addresses = [], []
    for name in ("compose.yaml", "compose.dev.yaml"):
        file = yaml.safe_load((ROOT / "docker" / name).read_text())
        volumes.append(set(file["volumes"]))
        addresses.append(set(file["services"]["service"]["ports"]))
    assert not set.intersection(*volumes)
    assert not set.intersection(*addresses)


def test_the_audit_log_of_a_team_outlives_its_container() -> None:
    """What the engine keeps of the service's output goes with the container, and by its size."""
    file = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
    service = file["services"]["service"]
    mounted = dict(volume.split(":")[:2] for volume in service["volumes"] if "$" not in volume)
    folder, _, name = service["environment"]["DROPNORM_AUDIT_LOG"].rpartition("/")
    assert (mounted["data"], name) == (folder, "audit.jsonl")
    assert service["read_only"], "where nothing else could be written"


def test_secrets_are_made_where_compose_looks_for_them(tmp_path) -> None:
    folder = tmp_path / "docker"
    folder.mkdir()
    script = shutil.copy(ROOT / "docker" / "make-secrets", folder)
    (folder / ".env").write_text("DROPNORM_SECRETS=elsewhere\n")
    run(script, env={"DROPNORM_SECRETS": ""})
    assert (folder / "elsewhere" / "database_url").exists()
    run(script, env={"DROPNORM_SECRETS": "../mine"})
    assert (tmp_path / "mine" / "database_url").exists()


def test_secrets_are_made_once_and_open_to_nobody_else(tmp_path) -> None:
    composition = Composition("compose.yaml", tmp_path / "secrets")
    composition.make_secrets("train.example.org")
    made = {path: path.read_bytes() for path in composition.secrets.rglob("*") if path.is_file()}
    composition.make_secrets("train.example.org")

    assert {path: path.read_bytes() for path in made} == made
    assert composition.secrets.stat().st_mode & 0o777 == 0o700
    names = run(
        *("openssl", "x509", "-noout", "-ext", "subjectAltName"),
        *("-in", composition.secrets / "tls" / "server.crt"),
    )
    assert "DNS:train.example.org" in names


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_images_run_as_nobody_special_and_say_what_they_are(images: dict[str, str]) -> None:
    for image in images.values():
        config = inspect(image)["Config"]
        assert config["User"] == "dropnorm"
        assert config["Healthcheck"]["Test"]
        assert config["Entrypoint"][0] == "tini"
        assert config["Labels"]["org.opencontainers.image.title"]
        tools = run(
            *("docker", "run", "--rm", "--network", "none", "--entrypoint", "sh", image, "-c"),
            "command -v gcc cc make; ls /opt/venv/bin; true",
        ).split()
        assert not {"pip", "pip3", "/usr/bin/gcc", "/usr/bin/cc"} & set(tools)


@pytest.mark.timeout(3600)
@pytest.mark.slow
def test_the_image_has_the_versions_that_are_tested(images: dict[str, str]) -> None:
    """Every library in an image has the version of constraints.txt; torch may be any build of it."""
    locked = dict(
        line.lower().replace("_", "-").split("==")
        for line in run("grep", "-v", "^#", "constraints.txt").splitlines()
    )
    script = (
        "import importlib.metadata as m, json;"
        "print(json.dumps({d.name.lower().replace('_', '-'): d.version for d in m.distributions()}))"
    )
    for image in images.values():
        said = run(
            *("docker", "run", "--rm", "--network", "none", "--entrypoint", "python", image, "-c"),
            script,
        )
        found = {name: version.partition("+")[0] for name, version in json.loads(said).items()}
        known = found.keys() & locked.keys()
        assert {name: found[name] for name in known} == {name: locked[name] for name in known}
        assert {"mlflow", "sqlalchemy", "numpy"} <= known
