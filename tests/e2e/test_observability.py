"""What an operator sees of a real service: metrics, the dashboard and the alerts that are made of them, the doctor."""

import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import Metric
from tests.certificates import Authority
from tests.e2e.conftest import SMALL
from tests.e2e.servers import (
    MIRROR_PATIENCE,
    PATIENCE,
    Server,
    after_epoch,
    command,
    eventually,
    long,
    spec,
)
from tests.service.observability.scrapes import Scrape

import dropnorm as dn
from dropnorm.results import State

pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).parents[2]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
DASHBOARD = json.loads((ROOT / "docker/grafana/dropnorm.json").read_text(encoding="utf-8"))
ALERTS = yaml.safe_load((ROOT / "docker/prometheus/alerts.yaml").read_text(encoding="utf-8"))
EVERYWHERE = "0.0.0.0"  # noqa: S104 - what is wanted here

_MIRRORS = ("mlflow", "mlflow-artifacts")
_NAME = re.compile(r"\b(?:up|(?:dropnorm|process)_[a-z_]+)\b(?=[\s{\[)]|$)")


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service that has all that there is to be seen: TLS, metrics, MLflow."""
    folder = tmp_path_factory.mktemp("observed")
    pair = Authority(folder).issue("server")
    tls = ("--tls-certificate", str(pair.certificate), "--tls-key", str(pair.key))
    server = Server(folder / "data", *SMALL, "--metrics-port", "0", *tls).start()
    yield server
    server.end()


@pytest.fixture(scope="module")
def trained(observed: Server) -> dn.TrainingJob:
    """A job that the service has trained, and mirrored."""
    with connect(observed) as client:
        job = client.train(spec(), job_id="seen")
        job.result()
        eventually(lambda: job.refresh().mlflow_run_id, "the run")
        come_to_rest(observed)
        return job.refresh().snapshot


def come_to_rest(server: Server) -> None:
    """Wait until no job runs and MLflow has all of those that did."""

    def at_rest() -> bool:
        seen = scrape(server)
        behind = sum(seen.value("dropnorm_mirror_lag_events", mirror=name) for name in _MIRRORS)
        return behind == 0 and seen.value("dropnorm_slots", device="cpu", use="free") == 2

    eventually(at_rest, "the last job's end, and the mirrors", within=MIRROR_PATIENCE)


def connect(server: Server) -> dn.Client:
    return dn.Client(server.address, tls=dn.TLS(ca=server.data_dir.parent / "authority.pem"))


def scrape(server: Server) -> Scrape:
    return Scrape.of(server.said["metrics"])


def test_a_job_is_seen_in_every_metric_that_it_moves(
    observed: Server, trained: dn.TrainingJob
) -> None:
    seen = scrape(observed)
    assert seen.value("dropnorm_ready") == 1
    assert seen.value("dropnorm_jobs", state="SUCCEEDED") == 1
    assert seen.value("dropnorm_jobs_ended_total", state="SUCCEEDED") == 1
    assert seen.value("dropnorm_attempts_started_total") == 1
    assert seen.value("dropnorm_queue_wait_seconds_count") == 1
    assert trained.progress is not None
    assert seen.value("dropnorm_training_epochs_total") == 3
    assert 0 < seen.value("dropnorm_training_steps_total") <= trained.progress.steps
    assert seen.value("dropnorm_training_samples_total") > 3 * 1000
    assert seen.value("dropnorm_events_total") == trained.last_sequence
    assert seen.value("dropnorm_slots", device="cpu", use="free") == 2
    assert seen.value("dropnorm_rpcs_total", method="CreateTrainingJob", code="OK") == 1
    assert seen.value("dropnorm_rpc_seconds_count", method="GetTrainingJob") > 0
    assert seen.value("dropnorm_store_commit_seconds_count") > 0
    assert seen.value("dropnorm_disk_free_bytes") > 0
    assert seen.value("dropnorm_tls_certificate_expiry_seconds") > 1.7e9
    assert seen.value("process_resident_memory_bytes") > 2**20


def test_methods_that_there_are_not_are_one_label_however_many_are_tried(observed: Server) -> None:
    import grpc

    ca = (observed.data_dir.parent / "authority.pem").read_bytes()
    before = scrape(observed).value("dropnorm_rpcs_total", method="unknown")
    with grpc.secure_channel(observed.address, grpc.ssl_channel_credentials(ca)) as channel:
        for number in range(20):
            call: Any = channel.unary_unary(f"/dropnorm.v1.TrainingService/Made{number}")
            with pytest.raises(grpc.RpcError):
                call(b"", timeout=30)

    def tried() -> float:
        return scrape(observed).value("dropnorm_rpcs_total", method="unknown") - before

    eventually(lambda: tried() >= 20, "all of them are counted")
    assert tried() == 20
    seen = scrape(observed)
    methods = {labels["method"] for labels, _ in seen.samples("dropnorm_rpcs_total")}
    assert not any("Made" in method for method in methods)


def test_watch_streams_are_counted_while_they_are_open(observed: Server) -> None:
    def open_streams() -> float:
        return scrape(observed).value("dropnorm_rpcs_in_flight", method="WatchTrainingJob")

    with connect(observed) as client:
        job = client.train(long())
        after_epoch(job)
        events = iter(job.watch())
        next(events)
        eventually(lambda: open_streams() == 1, "the one before is closed")
        assert scrape(observed).value("dropnorm_slots", use="busy") == 1
        assert scrape(observed).value("dropnorm_training_samples_per_second") > 0
        job.cancel()
        list(events)
    eventually(lambda: open_streams() == 0, "the end of the stream")


def test_metrics_are_true_after_a_kill_and_a_restart(make_server: Callable[..., Server]) -> None:
    server = make_server("--metrics-port", "0").start()
    with server.client() as client:
        client.train(spec()).result()
        paused = client.train(long())
        after_epoch(paused)
        paused.pause()
        eventually(lambda: paused.refresh().state is State.PAUSED, "the pause")
        deleted = client.train(spec())
        deleted.result()
        deleted.delete()
        before = states(scrape(server))
        assert before == {"SUCCEEDED": 1, "PAUSED": 1}
        server.kill()
        server.start()
        assert states(scrape(server)) == before
        paused.cancel()
        assert states(scrape(server)) == {"SUCCEEDED": 1, "CANCELLED": 1}


def states(seen: Scrape) -> dict[str, float]:
    return {labels["state"]: value for labels, value in seen.samples("dropnorm_jobs") if value}


def test_metrics_for_other_machines_are_a_warning_and_name_nobody(
    make_server: Callable[..., Server],
) -> None:
    server = make_server("--metrics-host", EVERYWHERE, "--metrics-port", "0").start()
    assert f"the metrics at {EVERYWHERE} can be read from other machines" in server.log
    with server.client() as client:
        job = client.train(
            spec("iris", epochs=1), job_id="nameless", name="whose", labels={"of": "ada"}
        )
        job.result(timeout=PATIENCE)
    url = server.said["metrics"].replace(EVERYWHERE, "127.0.0.1")
    said = Scrape.of(url)
    assert said.value("dropnorm_jobs_ended_total", state="SUCCEEDED") == 1
    labels = {
        value
        for each in said.families
        for sample in each.samples
        for value in sample.labels.values()
    }
    assert not [each for each in labels if re.search("nameless|whose|ada|local", each)]


def test_a_metrics_port_that_is_taken_is_a_sentence(observed: Server, tmp_path: Path) -> None:
    port = observed.said["metrics"].rpartition(":")[2].partition("/")[0]
    run = subprocess.run(
        command(
            "--data-dir", tmp_path, "--port", 0, *SMALL, "--no-tracking", "--metrics-port", port
        ),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert run.returncode == 1
    assert f"cannot serve metrics on 127.0.0.1:{port}" in run.stderr.splitlines()[-1]


def queries() -> Iterator[tuple[str, str]]:
    """Every query of the dashboard and the alerts, with what it is for."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for rule in rules():
        yield rule["alert"], rule["expr"]


def rules() -> list[dict[str, Any]]:
    return [rule for group in ALERTS["groups"] for rule in group["rules"]]


def exposed(family: Metric) -> set[str]:
    """What a query can name of a metric, also before it has its first sample."""
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}
    return {family.name + suffix for suffix in suffixes.get(family.type, [""])}


def test_the_dashboard_and_the_alerts_ask_for_metrics_that_there_are(
    observed: Server, trained: dn.TrainingJob
) -> None:
    there = {"up"}.union(*map(exposed, scrape(observed).families))
    for title, query in queries():
        asked = set(_NAME.findall(query))
        assert asked, f"{title} asks for nothing"
        assert asked <= there, title


def test_every_metric_of_ours_is_on_the_dashboard(observed: Server) -> None:
    asked = {name for _, query in queries() for name in _NAME.findall(query)}
    for family in scrape(observed).families:
        if family.name.startswith("dropnorm_") and not family.name.endswith("_created"):
            assert exposed(family) & asked, family.name


def test_the_operations_page_lists_every_metric_with_its_kind(observed: Server) -> None:
    rows = re.findall(r"^\| `(dropnorm_\w+)` \| (\w+) \|", OPERATIONS, re.MULTILINE)
    families = [each for each in scrape(observed).families if each.name.startswith("dropnorm_")]
    assert dict(rows) == {
        each.name + ("_total" if each.type == "counter" else ""): each.type
        for each in families
        if not each.name.endswith("_created")
    }


def test_the_operations_page_explains_every_alert_and_no_other() -> None:
    explained = re.findall(r"^\*\*(Dropnorm\w+)\*\*", OPERATIONS, re.MULTILINE)
    assert explained == [rule["alert"] for rule in rules()]
    assert all(rule["annotations"]["summary"] for rule in rules())


def test_the_dashboard_can_be_imported_anywhere() -> None:
    assert [each["name"] for each in DASHBOARD["templating"]["list"]] == ["datasource", "instance"]
    uids = re.findall(r'"uid": "([^"]+)"', json.dumps(DASHBOARD["panels"]))
    assert set(uids) == {"${datasource}"}
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)


def test_the_doctor_finds_a_running_service_well_and_changes_nothing(
    observed: Server, trained: dn.TrainingJob
) -> None:
    come_to_rest(observed)
    before = files(observed.data_dir)
    arguments = ["--address", observed.address, "--json", "--data-dir", str(observed.data_dir)]
    ca = {"DROPNORM_TLS_CA": str(observed.data_dir.parent / "authority.pem")}
    run = subprocess.run(
        [sys.executable, "-m", "dropnorm.cli", "doctor", *arguments, "--port", str(observed.port)],
        capture_output=True,
        text=True,
        timeout=110,
        env=os.environ | ca,
    )
    findings = [json.loads(line) for line in run.stdout.splitlines()]
    assert run.returncode == 0, findings
    assert not [each for each in findings if each["status"] == "failure"]
    texts = " ".join(each["text"] for each in findings)
    assert f"process {observed.process.pid}" in texts
    assert f"{observed.address} answers; it has 2 slots" in texts
    assert f"The service runs dropnorm {dn.__version__} too." in texts
    assert files(observed.data_dir) == before


def test_where_only_a_client_is_the_doctor_looks_at_the_service_from_there(
    observed: Server, tmp_path: Path
) -> None:
    ca = {"DROPNORM_TLS_CA": str(observed.data_dir.parent / "authority.pem")}
    status, findings = as_client(observed.address, ca, tmp_path)
    assert (status, {each["status"] for each in findings}) == (0, {"ok"})
    assert [each["check"] for each in findings] == ["client", "service", "version"]

    plain, findings = as_client(observed.address, {"DROPNORM_TLS": "0"}, tmp_path)
    assert (plain, findings[-1]["status"]) == (1, "failure")
    assert "both sides use TLS, or neither" in findings[-1]["do"]

    missing, findings = as_client(observed.address, {"DROPNORM_TLS_CA": "/nowhere.pem"}, tmp_path)
    assert (missing, findings[-1]["check"]) == (1, "access")
    assert "/nowhere.pem" in findings[-1]["text"]


def as_client(address: str, env: dict[str, str], folder: Path) -> tuple[int, list[dict[str, str]]]:
    """What the command says where the service's package cannot be found."""
    without = (
        "import importlib.util as u, sys; find = u.find_spec; "
        "u.find_spec = lambda name, *rest: None if 'service' in name else find(name, *rest); "
        "sys.argv[0] = 'dropnorm'; from dropnorm.cli import main; main()"
    )
    run = subprocess.run(
        [sys.executable, "-c", without, "doctor", "--json", "--address", address],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=os.environ | env,
        cwd=folder,
    )
    return run.returncode, [json.loads(line) for line in run.stdout.splitlines()]


def test_a_service_that_is_not_ready_is_alive(make_server: Callable[..., Server]) -> None:
    server = make_server("--metrics-port", "0").start()
    eventually(lambda: server.health() == "SERVING", "the service")
    with closing(
        sqlite3.connect(server.data_dir / "dropnorm.db", isolation_level=None, timeout=PATIENCE)
    ) as other:
        other.execute("BEGIN IMMEDIATE")
        eventually(lambda: server.health() == "NOT_SERVING", "the look at the store")
        assert server.health("liveness") == "SERVING"
        assert scrape(server).value("dropnorm_ready") == 0
    eventually(lambda: server.health("dropnorm.v1.TrainingService") == "SERVING", "the recovery")
    assert scrape(server).value("dropnorm_ready") == 1


def files(folder: Path) -> set[str]:
    """What lies there, without what a service at work makes and removes."""
    return {str(path) for path in folder.rglob("*") if not path.name.startswith((".", "tmp"))}
