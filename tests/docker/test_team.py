"""compose.yaml for real: TLS, tokens, PostgreSQL and MLflow, in containers that end and start in mid-job."""

from __future__ import annotations

import json
import ssl
import time
import urllib.request
from functools import partial

import grpc
import pytest
from mlflow import MlflowClient
from tests.docker.engine import PATIENCE, SERVICES, Composition, inspect, processes, run
from tests.docker.jobs import check_mirrored, ended_run, next_epoch, runs_of
from tests.e2e.servers import after_epoch, check_journal, eventually, long, spec
from tests.e2e.test_readme import blocks
from tests.figures import Figures

import dropnorm as dn

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(3600)]

SMALL_JOBS = 12


def test_nobody_is_let_in_without_a_token_or_without_tls(team: Composition) -> None:
    address, tls = f"127.0.0.1:{team.port}", dn.TLS(ca=team.secrets / "ca.crt")
    with dn.Client(address, tls=tls) as stranger, pytest.raises(dn.Unauthenticated):
        list(stranger.jobs())
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.FutureTimeoutError):
        grpc.channel_ready_future(channel).result(timeout=3)


def test_a_job_is_on_mlflows_page(team: Composition, client: dn.Client) -> None:
    job = client.train(spec(), name="first", experiment="deployed")
    evaluation = job.result()

    run = ended_run(team, job, "FINISHED")
    assert run.data.metrics["test_accuracy"] == pytest.approx(evaluation.test.accuracy)
    files = partial(MlflowClient(team.mlflow).list_artifacts, run.info.run_id)
    eventually(files, "its files are there too", within=PATIENCE)
    with urllib.request.urlopen(team.mlflow, timeout=30) as page:  # noqa: S310 - our own URL
        text = page.read().decode()
        assert "MLflow" in text
        assert 'id="root"' in text


def test_metrics_are_read_from_inside_and_published_nowhere(team: Composition) -> None:
    ports = inspect(team.container("service"))["NetworkSettings"]["Ports"]
    assert [port for port, published in ports.items() if published] == ["50051/tcp"]
    said = team.execute(
        *("mlflow", "python", "-c"),
        "import urllib.request as r; print(r.urlopen('http://service:9464/metrics').read().decode())",
    )
    assert "dropnorm_ready 1.0" in said


def test_the_readmes_program_trains(team: Composition, token: str, capsys) -> None:
    [program] = blocks("python", "Deploy with Docker")
    for shown, here in {
        "localhost:50051": f"127.0.0.1:{team.port}",
        "dn_...": token,
        "docker/secrets": str(team.secrets),
    }.items():
        assert shown in program
        program = program.replace(shown, here)

    exec(program, {})  # noqa: S102 (the page's own text)

    assert 0.5 < float(capsys.readouterr().out) <= 1.0


def test_restarts_in_mid_job_lose_and_double_nothing(
    team: Composition, client: dn.Client, figures: Figures
) -> None:
    endless = client.train(long(), name="endless", experiment="restarted", priority=1)
    small = [
        client.train(spec(), name=f"small-{n}", experiment="restarted") for n in range(SMALL_JOBS)
    ]
    last = after_epoch(endless).sequence

    for fault in (stop_and_start, kill_and_start, crash, restart_database, restart_mlflow):
        began = time.monotonic()
        fault(team)
        last = next_epoch(endless, last).sequence
        took = time.monotonic() - began
        figures("docker", f"{fault.__name__}: training again after {took:.0f} s")
    for job in small:
        job.result(timeout=PATIENCE)
    endless.cancel()
    with pytest.raises(dn.JobCancelled):
        endless.result(timeout=PATIENCE)

    assert {job.id for job in client.jobs()} >= {job.id for job in (endless, *small)}
    for job in (endless, *small):
        check_journal(list(job.watch()))
        check_mirrored(team, job, "KILLED" if job is endless else "FINISHED")
    assert len(runs_of(team, "restarted")) == len(small) + 1


def test_the_audit_log_is_in_the_volume_and_has_the_commands_too(team: Composition) -> None:
    lines = team.execute("service", "cat", "/var/lib/dropnorm/audit.jsonl").splitlines()
    actions = {json.loads(line)["action"] for line in lines}
    assert {"CreateToken", "CreateTrainingJob"} <= actions


def test_processes_have_no_rights(team: Composition) -> None:
    for service in SERVICES:
        host = inspect(team.container(service))["HostConfig"]
        assert host["ReadonlyRootfs"]
        assert host["CapDrop"] == ["ALL"]
        assert not host["Privileged"]
        status = team.execute(service, "cat", "/proc/1/status")
        assert "NoNewPrivs:\t1" in status
        if service != "postgres":  # whose entrypoint becomes the user postgres by itself
            assert team.execute(service, "id", "-u").strip() == "10001"
            assert "CapEff:\t0000000000000000" in status
    assert team.execute("postgres", "stat", "-c", "%u", "/proc/1").strip() != "0"


def test_who_outlives_its_parent_is_reaped(team: Composition) -> None:
    orphan = team.execute("service", "sh", "-c", "sleep 0.5 > /dev/null 2>&1 & echo $!").strip()

    def gone() -> bool:
        return orphan not in team.execute("service", "ls", "/proc").split()

    eventually(gone, "process 1 reaps the orphan")
    # Whoever has just ended may wait for a moment.
    eventually(
        lambda: "Z" not in {state for state, _ in processes(team, "service")},
        "nobody stays a zombie",
    )


def test_no_secret_is_in_images_configurations_logs_or_command_lines(
    team: Composition, images: dict[str, str], token: str
) -> None:
    secrets = {
        "password": (team.secrets / "postgres_password").read_text(),
        "key": "".join((team.secrets / "tls" / "server.key").read_text().splitlines()[1:-1]),
        "token": token,
    }
    places = {f"history of {image}": history(image) for image in images.values()}
    for service in SERVICES:
        container = team.container(service)
        places[f"configuration of {service}"] = run("docker", "inspect", container)
        places[f"logs of {service}"] = team.logs(service)
        places[f"command lines of {service}"] = run("docker", "top", container, "-eo", "pid,args")
    found = [
        f"the {secret} in the {place}"
        for place, text in places.items()
        for secret, value in secrets.items()
        if value in text
    ]
    assert not found


def test_a_renewed_certificate_is_taken_up_without_a_restart(
    team: Composition, client: dn.Client
) -> None:
    before = served(team)
    team.make_secrets("--renew", "train.example.org")

    eventually(lambda: served(team) != before, "the new certificate is served")
    assert served(team) == (team.secrets / "tls" / "server.crt").read_text()
    list(client.jobs())
    team.healthy("service")


# What is done to the containers.


def stop_and_start(team: Composition) -> None:
    team.compose("stop", "service")
    state = team.state("service")
    assert state["ExitCode"] == 0, team.logs("service")[-5000:]
    team.compose("start", "service")


def kill_and_start(team: Composition) -> None:
    run("docker", "kill", "--signal", "KILL", team.container("service"))
    team.compose("start", "service")


def crash(team: Composition) -> None:
    """The server dies of itself; the engine starts its container again."""
    container = team.container("service")
    restarts = inspect(container)["RestartCount"]
    team.execute(
        *("service", "python", "-c"),
        "import os, signal, pathlib\n"
        "[server] = pathlib.Path('/proc/1/task/1/children').read_text().split()\n"
        "os.kill(int(server), signal.SIGKILL)",
    )
    eventually(lambda: inspect(container)["RestartCount"] > restarts, "the engine starts it again")


def restart_database(team: Composition) -> None:
    team.compose("restart", "postgres")


def restart_mlflow(team: Composition) -> None:
    team.compose("restart", "mlflow")


# What is looked at.


def history(image: str) -> str:
    return run("docker", "history", "--no-trunc", image)


def served(team: Composition) -> str:
    """The certificate that a new connection gets to see."""
    return ssl.get_server_certificate(("127.0.0.1", team.port))
