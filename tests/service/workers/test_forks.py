import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.service.workers.conftest import (
    alive,
    children_of,
    gone,
    logged,
    no_descriptors,
    threads_of,
)

from dropnorm_service.workers import ForkServer, StartFailed
from dropnorm_service.workers.messages import Trace
from dropnorm_service.workers.process import Child

pytestmark = pytest.mark.asyncio(loop_scope="session")

CHILDREN = "tests.service.workers.children"


async def heard(child: Child) -> dict[str, Any]:
    message = await child.receive()
    assert isinstance(message, Trace)
    facts: dict[str, Any] = json.loads(message.text)
    return facts


async def held_up(forks: ForkServer) -> Child:
    """A child that has said more than is taken in before somebody reads it."""
    child = await forks.fork(f"{CHILDREN}:chatter", {})
    for _ in range(6000):
        if child._channel._paused:
            return child
        await asyncio.sleep(0.01)
    raise AssertionError("it was never held up")


def opened_by(pid: int | None) -> set[tuple[str, str]]:
    """The descriptors of a process, with what each is."""
    found = set()
    folder = Path(f"/proc/{pid}/fd")
    for number in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):  # the folder that is being listed
            found.add((number, os.readlink(folder / number)))
    return found


async def numbers_of(child: Child) -> list[int]:
    """What a chatterer said, to its end."""
    numbers = []
    while message := await child.receive():
        assert isinstance(message, Trace)
        numbers.append(json.loads(message.text)["number"])
    return numbers


async def test_a_child_gets_its_environment_and_its_connection_and_nothing_else(
    bare_forks: ForkServer,
) -> None:
    earlier = await bare_forks.fork(f"{CHILDREN}:hang", {})
    child = await bare_forks.fork(f"{CHILDREN}:introduce", {"ROOM": "workers"})
    facts = await heard(child)
    assert facts["environment"] == "workers"
    assert list(facts["descriptors"]) == [str(facts["own"])]
    assert facts["group"] == facts["pid"] == child.pid
    assert facts["ignores_interrupt"]
    assert facts["threads"] == 1
    assert "ROOM" not in os.environ
    for each in (earlier, child):
        await each.end()


@pytest.mark.parametrize(("habit", "status"), [("exit_with_3", 3), ("fail", 1)])
async def test_how_a_child_ended_is_known(habit: str, status: int, bare_forks: ForkServer) -> None:
    child = await bare_forks.fork(f"{CHILDREN}:{habit}", {})
    assert await child.receive() is None
    assert await child.exit_status() == status
    assert child.gone


async def test_a_killed_child_takes_its_own_children_along(bare_forks: ForkServer) -> None:
    child = await bare_forks.fork(f"{CHILDREN}:with_a_child_of_its_own", {})
    grandchild = (await heard(child))["child"]
    assert alive(grandchild)
    child.kill()
    assert await child.exit_status() == -signal.SIGKILL
    assert await gone(grandchild)


async def test_so_does_one_that_somebody_else_killed(bare_forks: ForkServer) -> None:
    """As the kernel does where memory runs out."""
    child = await bare_forks.fork(f"{CHILDREN}:with_a_child_of_its_own", {})
    grandchild = (await heard(child))["child"]
    os.kill(child.pid, signal.SIGKILL)
    assert await child.exit_status() == -signal.SIGKILL
    assert await gone(grandchild)


async def test_a_reader_that_is_slow_loses_nothing(bare_forks: ForkServer) -> None:
    child = await bare_forks.fork(f"{CHILDREN}:chatter", {})
    await asyncio.sleep(0.1)
    assert await numbers_of(child) == list(range(5000))
    assert await child.exit_status() == 0


async def test_a_child_that_waits_for_its_reader_can_be_ended(bare_forks: ForkServer) -> None:
    child = await held_up(bare_forks)
    async with asyncio.timeout(60):
        await child.end()
    assert await gone(child.pid)
    assert child.gone


async def test_what_a_killed_child_had_said_is_still_read(bare_forks: ForkServer) -> None:
    child = await held_up(bare_forks)
    child.kill()
    assert await child.exit_status() == -signal.SIGKILL
    numbers = await numbers_of(child)
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > 256


async def test_a_child_that_sends_no_message_is_cut_off(
    bare_forks: ForkServer, caplog: pytest.LogCaptureFixture
) -> None:
    child = await bare_forks.fork(f"{CHILDREN}:babble", {})
    assert await child.receive() is None
    assert await child.exit_status() == 0
    assert "what is no message" in caplog.text


async def test_children_leave_no_descriptor_behind(bare_forks: ForkServer) -> None:
    before = opened_by(os.getpid())
    server_before = opened_by(bare_forks.pid)
    for _ in range(5):
        child = await bare_forks.fork(f"{CHILDREN}:hang", {})
        await heard(child)
        await child.end()
    # Fewer there may be: what an earlier test left is closed when it is collected.
    assert opened_by(os.getpid()) <= before
    assert opened_by(bare_forks.pid) <= server_before


async def test_a_fork_given_up_leaves_no_process(bare_forks: ForkServer) -> None:
    request = asyncio.create_task(bare_forks.fork(f"{CHILDREN}:introduce", {"ROOM": ""}))
    await asyncio.sleep(0)
    request.cancel()
    await asyncio.wait([request])
    assert request.cancelled()
    for _ in range(3000):
        if not children_of(bare_forks.pid):
            break
        await asyncio.sleep(0.02)
    assert children_of(bare_forks.pid) == set()


async def test_when_the_fork_server_dies_another_comes_and_its_children_live_on() -> None:
    async with ForkServer(preload=()) as forks:
        child = await forks.fork(f"{CHILDREN}:introduce", {"ROOM": "here"})
        first = forks.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        another = await forks.fork(f"{CHILDREN}:hang", {})
        await heard(another)
        assert forks.pid not in (None, first)
        assert (await heard(child))["environment"] == "here"
        assert not child.gone
        await child.end()
        assert await gone(child.pid)
        assert await child.exit_status() is None
        second = forks.pid
    assert second is not None
    assert await gone(another.pid)
    assert not alive(second)


async def test_a_fork_server_that_cannot_start_says_so_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(StartFailed, match="before it was ready"):
        async with ForkServer(preload=["tests.there_is_no_such_module"]):
            pass
    assert "there_is_no_such_module" in caplog.text


async def test_what_processes_print_is_in_the_log_a_record_each_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with ForkServer(preload=()) as forks:
        child = await forks.fork("tests.service.workers.children:print_much", {})
        assert await child.exit_status() == 0
    printed = [each for each in caplog.records if each.name == "dropnorm_service.workers.output"]
    texts = [record.getMessage() for record in printed]
    assert texts[:2] == ["one line", '{"level": "error", "message": "forged"}']
    assert texts[2].startswith("\N{REPLACEMENT CHARACTER} not UTF-8")
    assert "".join(texts[3:]).count("long") == 10_000  # without its end too


async def test_a_fork_server_that_cannot_be_started_for_a_while_comes_when_it_can(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with ForkServer(preload=()) as forks:
        assert forks.pid is not None
        with no_descriptors():
            os.kill(forks.pid, signal.SIGKILL)
            await logged(caplog, "could not be started")
            assert not await forks.answers(within=0.1)
        child = await forks.fork(f"{CHILDREN}:hang", {})
        await heard(child)
        assert await forks.answers(within=30.0)


async def test_nothing_can_be_started_from_the_beginning() -> None:
    with no_descriptors(), pytest.raises(StartFailed, match="could not be started"):
        async with ForkServer(preload=()):
            pass


async def test_it_ends_while_it_waits_for_descriptors(caplog: pytest.LogCaptureFixture) -> None:
    async with ForkServer(preload=()) as forks:
        assert forks.pid is not None
        with no_descriptors():
            os.kill(forks.pid, signal.SIGKILL)
            await logged(caplog, "could not be started")
            await forks.__aexit__()


async def test_a_fork_that_the_system_refuses_is_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with ForkServer(preload=["tests.service.workers.first_fork_fails"]) as forks:
        server = forks.pid
        child = await forks.fork(f"{CHILDREN}:hang", {})
        await heard(child)
        assert forks.pid == server
    assert "Resource temporarily unavailable" in caplog.text


async def test_a_fork_server_that_is_stopped_does_not_answer_and_can_be_ended() -> None:
    async with ForkServer(preload=()) as forks:
        assert await forks.answers(within=30.0)
        child = await forks.fork(f"{CHILDREN}:hang", {})
        await heard(child)
        assert forks.pid is not None
        os.kill(forks.pid, signal.SIGSTOP)
        for _ in range(2):
            assert not await forks.answers(within=0.1)
        os.kill(forks.pid, signal.SIGCONT)
        assert await forks.answers(within=30.0)
        os.kill(forks.pid, signal.SIGSTOP)
        server = forks.pid
    assert not alive(server)
    assert await gone(child.pid)


async def test_the_real_fork_server_has_one_thread_and_no_gpu(forks: ForkServer) -> None:
    assert forks.pid is not None
    assert threads_of(forks.pid) == 1
    descriptors = Path(f"/proc/{forks.pid}/fd")
    opened = [os.readlink(descriptors / number) for number in os.listdir(descriptors)]
    assert not [path for path in opened if path.startswith("/dev/nvidia")]


async def test_nothing_outlives_a_killed_server() -> None:
    program = f"""
import asyncio, os
from dropnorm_service.workers import ForkServer
async def main():
    async with ForkServer(preload=()) as forks:
        child = await forks.fork("{CHILDREN}:introduce", {{"ROOM": ""}})
        await child.receive()
        print(forks.pid, child.pid, flush=True)
        await asyncio.sleep(3600)
asyncio.run(main())
"""
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE
    )
    assert server.stdout is not None
    pids = [int(pid) for pid in (await server.stdout.readline()).split()]
    assert all(map(alive, pids))
    server.kill()
    await server.wait()
    for pid in pids:
        assert await gone(pid)
