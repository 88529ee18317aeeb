"""The `dropnorm` command as scripts and people run it: a process, against a real server."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from tests.client import samples
from tests.client.scripted import ScriptedService, fault, rejection

import dropnorm as dn
from dropnorm.cli import models
from dropnorm.results import State

SPEC = """
architecture: {kind: mlp, hidden: [8]}
data: {dataset: digits}
optimization: {epochs: 3}
"""


@pytest.fixture
def spec_file(tmp_path):
    path = tmp_path / "net.yaml"
    path.write_text(SPEC)
    return path


class Done:
    """How a command ended."""

    def __init__(self, status: int | None, out: bytes, err: bytes) -> None:
        self.status = status
        self.out = out.decode()
        self.err = " ".join(err.decode().split())  # as one line, however it was wrapped

    @property
    def objects(self):
        return [json.loads(line) for line in self.out.splitlines()]


async def run(*arguments: object, address: str = "127.0.0.1:1") -> Done:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "dropnorm.cli",
        *map(str, arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"DROPNORM_ADDRESS": address, "COLUMNS": "200"},
    )
    out, err = await process.communicate()
    return Done(process.returncode, out, err)


async def test_help_says_what_the_exit_status_means():
    done = await run("--help")

    assert done.status == 0
    assert "1 the job failed" in done.out
    assert "4 the service cannot be reached" in done.out


async def test_schema_is_json_schema_of_a_spec():
    done = await run("schema")

    assert done.status == 0
    assert set(json.loads(done.out)["required"]) == {"architecture", "data"}


async def test_nobody_there(spec_file):
    done = await run("train", spec_file)

    assert done.status == 4
    assert "No dropnorm service answers at 127.0.0.1:1" in done.err
    assert done.out == ""


async def test_an_invalid_spec_names_every_field_before_anything_is_sent(tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text("architecture: {kind: mlp, hidden: [0]}\ndata: {dataset: digits, nonsense: 1}")

    done = await run("plan", path)

    assert done.status == 2
    assert "2 things are wrong" in done.err
    assert "architecture.mlp.hidden[0]" in done.err
    assert "data.nonsense" in done.err


async def test_a_missing_file(tmp_path):
    done = await run("train", tmp_path / "nothing.yaml")

    assert done.status == 2
    assert "There is no file or folder" in done.err


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("folder.yaml", None, "folder.yaml cannot be used: Is a directory."),
        ("latin.yaml", b"seed: \xff", "is not text in UTF-8"),
        ("deep.yaml", b"[" * 100_000, "nests too deep"),
        ("deep.json", b"[" * 100_000, "nests too deep"),
        ("empty.yaml", b"", "is empty"),
    ],
)
async def test_a_file_that_is_no_spec(tmp_path, name, content, text):
    path = tmp_path / name
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)

    done = await run("plan", path)

    assert done.status == 2
    assert text in done.err
    assert "Traceback" not in done.err


async def test_an_empty_name_is_refused_and_not_replaced(service, spec_file):
    done = await run("train", spec_file, "--name", "", "--detach", address=service.address)

    assert done.status == 2
    assert "training_job.display_name" in done.err
    assert service.jobs == {}


async def test_a_number_beyond_any_journal_is_wrong_usage(service):
    service.add(samples.job("first"))
    done = await run("jobs", "watch", "first", "--after", "9" * 20, address=service.address)

    assert done.status == 2
    assert "after_sequence: give a whole number" in done.err


async def test_wrong_usage(spec_file):
    assert (await run("train")).status == 2
    done = await run("train", spec_file, "--label", "nonsense")
    assert done.status == 2
    assert "KEY=VALUE" in done.err


async def test_train_follows_the_job_and_shows_its_evaluation(service, spec_file):
    running = asyncio.create_task(run("train", spec_file, address=service.address))
    await end_next_job(service, State.SUCCEEDED)
    done = await running

    assert done.status == 0
    assert "trainingJobs/job-0 is queued" in done.err
    assert "net: epoch 1: train loss" in done.err
    assert "classification of digits: best epoch 3 of 3" in done.out
    assert "0.9000" in done.out


async def test_train_as_json_is_one_object(service, spec_file):
    options = ("--json", "--name", "a name", "--label", "team=vision", "--priority", "3")
    running = asyncio.create_task(run("train", spec_file, *options, address=service.address))
    await end_next_job(service, State.SUCCEEDED)
    done = await running

    [job] = done.objects
    assert job["display_name"] == "a name"
    assert job["labels"] == {"team": "vision"}
    assert job["priority"] == 3
    assert job["state"] == "succeeded"
    assert job["evaluation"]["test"]["accuracy"] == 0.9
    assert done.err == ""


@pytest.mark.parametrize(
    ("ending", "status", "text"),
    [(State.FAILED, 1, "the loss became NaN"), (State.CANCELLED, 5, "was cancelled")],
)
async def test_train_says_how_the_job_ended(service, spec_file, ending, status, text):
    running = asyncio.create_task(run("train", spec_file, address=service.address))
    await end_next_job(service, ending)
    done = await running

    assert done.status == status
    assert text in done.err


@pytest.mark.parametrize(("ending", "status"), [(State.FAILED, 1), (State.CANCELLED, 5)])
async def test_train_as_json_gives_a_job_that_ended_badly_too(service, spec_file, ending, status):
    running = asyncio.create_task(run("train", spec_file, "--json", address=service.address))
    await end_next_job(service, ending)
    done = await running

    assert done.status == status
    assert [job["state"] for job in done.objects] == [ending]


async def test_train_detached_prints_the_id_alone(service, spec_file):
    done = await run("train", spec_file, "--detach", "--id", "mine", address=service.address)

    assert (done.status, done.out) == (0, "mine\n")


async def test_plan(service, spec_file):
    shown = await run("plan", spec_file, address=service.address)
    [read] = (await run("plan", spec_file, "--json", address=service.address)).objects

    assert "hidden.0.linear" in shown.out
    assert "DROPOUT_ON_LOGITS" in shown.out
    assert dn.Plan.model_validate(read) == samples.plan()


async def test_workers(service):
    shown = await run("workers", address=service.address)
    [read] = (await run("workers", "--json", address=service.address)).objects

    assert "cpu-1" in shown.out
    assert dn.Worker.model_validate(read) == samples.WORKER


async def test_what_would_steer_a_terminal_is_left_out(service):
    """Names that a service took before it refused such, or that another takes."""
    name = "\x1b]0;mine\x07red\x9b31m\u202etxt\r"
    service.add(samples.job("first", display_name=name, labels={"k": "\x1b[2J"}))
    for command in (["list"], ["get", "first"]):
        shown = await run("jobs", *command, address=service.address)
        assert shown.status == 0
        assert "]0;minered31mtxt" in shown.out
        assert all(text.isprintable() for text in shown.out.splitlines())


async def test_jobs_list(service):
    for number in range(5):
        service.add(samples.job(f"job-{number}", display_name=f"[bold]net {number}"))
    shown = await run("jobs", "list", "--limit", 3, address=service.address)
    read = await run(
        "jobs", "list", "--json", "--filter", "state = QUEUED", address=service.address
    )

    assert "[bold]net 2" in shown.out
    assert "net 3" not in shown.out
    assert "These are 3, and there are more" in shown.err
    assert [job["name"] for job in read.objects] == [f"trainingJobs/job-{n}" for n in range(5)]
    assert service.requests[-1].filter == "state = QUEUED"


async def test_jobs_get(service):
    service.add(samples.job("first"), *samples.story(State.FAILED))
    shown = await run("jobs", "get", "first", address=service.address)
    [read] = (await run("jobs", "get", "first", "--json", address=service.address)).objects

    assert "DIVERGED: the loss became NaN in epoch 2" in shown.out
    assert dn.TrainingJob.model_validate(read) == service.jobs["trainingJobs/first"]


async def test_jobs_get_of_none(service):
    done = await run("jobs", "get", "nothing", address=service.address)

    assert done.status == 3
    assert "There is no training job trainingJobs/nothing." in done.err


@pytest.mark.parametrize(
    ("ending", "status"), [(State.SUCCEEDED, 0), (State.FAILED, 1), (State.CANCELLED, 5)]
)
async def test_jobs_watch_as_json_lines(service, ending, status):
    service.add(samples.job("first"), *samples.story(ending))
    done = await run("jobs", "watch", "first", "--json", address=service.address)

    assert done.status == status
    events = [dn.Event.model_validate(line) for line in done.objects]
    assert events == service.journals["trainingJobs/first"]


async def test_jobs_watch_for_people(service):
    service.add(samples.job("first"), *samples.story())
    done = await run("jobs", "watch", "first", "--after", 8, address=service.address)

    assert done.status == 0
    assert done.out.split()[0] == "9"
    assert "succeeded" in done.out


async def test_jobs_are_steered(service):
    service.add(samples.job("first"))

    assert "is paused" in (await run("jobs", "pause", "first", address=service.address)).err
    assert "is queued" in (await run("jobs", "resume", "first", address=service.address)).err
    [job] = (await run("jobs", "cancel", "first", "--json", address=service.address)).objects
    assert job["state"] == "cancelled"
    assert "is deleted" in (await run("jobs", "delete", "first", address=service.address)).err
    assert service.jobs == {}


async def test_a_deleted_job_as_json_is_the_job_as_last_seen(service):
    last = service.add(samples.job("first"), *samples.story(State.CANCELLED))
    [job] = (await run("jobs", "delete", "first", "--json", address=service.address)).objects

    assert dn.TrainingJob.model_validate(job) == last
    assert service.jobs == {}


async def test_a_wrong_state_is_a_conflict(service):
    service.add(samples.job("first"))
    service.faults["PauseTrainingJob"] = [
        rejection(grpc.StatusCode.FAILED_PRECONDITION, "WRONG_STATE", "It has ended.")
    ]
    done = await run("jobs", "pause", "first", address=service.address)

    assert done.status == 6
    assert "It has ended." in done.err


async def test_an_error_of_the_service_comes_with_its_request_id(service):
    service.faults["ListWorkers"] = [rejection(grpc.StatusCode.INTERNAL, "INTERNAL")]
    done = await run("workers", address=service.address)

    assert done.status == 7
    assert "request-1" in done.err


async def test_a_terminal_is_not_needed_and_a_fault_is_overcome(service):
    service.faults["ListWorkers"] = [fault(grpc.StatusCode.UNAVAILABLE)]

    assert (await run("workers", address=service.address)).status == 0


async def end_next_job(service: ScriptedService, ending: State) -> None:
    """Wait for a job to be created, and let it come to its end."""
    await service.created.wait()
    await service.tell(next(iter(service.jobs)), *samples.story(ending))


def test_modules_in_the_working_folder_are_not_run(tmp_path):
    for name in ("grpc", "pydantic_settings", "mlflow"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('this is not what was meant')")
    dropnorm = Path(sys.executable).with_name("dropnorm")
    for command in ("serve", "ui"):
        done = subprocess.run(
            [dropnorm, command, "--help"], cwd=tmp_path, check=False, capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert f"dropnorm {command}" in done.stdout


def test_an_embedded_service_does_not_run_modules_of_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "grpc.py").write_text("raise SystemExit('this is not what was meant')")
    monkeypatch.chdir(tmp_path)
    with dn.local(tmp_path / "data", tracking=False, cpu_slots=1) as service:
        assert service.workers()


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("x.csv", b"1,6x\n1,2\n", "row 1, column 2: '6x' is not a number"),
        ("x.csv", b"a,b\n\n1,2\n3,c\n", "row 4, column 2: 'c' is not a number"),
        ("x.csv", b"1,2\n3\n", "row 2 has 1 columns, and those before it 2"),
        ("x.csv", b"a,b\n1,\xff\n", "x.csv is not UTF-8 from byte 6 on"),
        ("x.json", b"[[\xff]]", "x.json is not UTF-8 from byte 2 on"),
        ("x.npz", b"PK", "x.npz cannot be read"),
        ("x.csv", b"1,nan\n", "input 0 has nan, which is no finite float32 number"),
    ],
)
async def test_broken_inputs_of_a_model_are_named(tmp_path, name, content, text):
    (tmp_path / name).write_bytes(content)
    done = await run("models", "predict", "trainingJobs/a", tmp_path / name)
    assert done.status == 2
    assert text in done.err.replace("│ ", "").replace(" │", "")


def test_cells_of_whole_numbers_are_tokens():
    assert repr(models._table("\ufeffa,b\n1,-2\n".removeprefix("\ufeff"))) == "[[1, -2]]"
    assert repr(models._table("1,2.5\n3,4\n\n")) == "[[1, 2.5], [3, 4]]"


def test_what_json_has_not_is_null():
    assert models._plain([1.0, float("nan"), [float("inf")], "nan"]) == [1.0, None, [None], "nan"]
