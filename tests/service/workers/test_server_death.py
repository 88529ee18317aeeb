"""A server that is killed leaves checkpoints behind, and no process."""

import asyncio
import sys
from pathlib import Path

from tests.service.workers.conftest import alive, gone, training

from dropnorm_service.training import Checkpoints
from dropnorm_service.workers import DataSettings

SERVER = """
import asyncio, sys
from pathlib import Path
from dropnorm.results import EpochCompleted
from dropnorm.spec import TrainingSpec
from dropnorm_service.jobs.ports import Launch
from dropnorm_service.workers import DataSettings, ForkServer, LocalExecutor

async def main(spec, folder, data):
    settings = {"cpu_slots": 2, "threads_per_slot": 1, "gpus": 0}
    preload = ("dropnorm_service.workers.child.preload", "tests.service.workers.patient")
    async with (
        ForkServer(preload) as forks,
        LocalExecutor(forks, data=data, **settings) as executor,
    ):
        async for item in executor.run(Launch(job_id="job", attempt=1, spec=spec, folder=folder)):
            if isinstance(item[1], EpochCompleted):
                await executor._standbys["cpu-1"]
                children = Path(f"/proc/{forks.pid}/task/{forks.pid}/children").read_text()
                print(forks.pid, children, flush=True)
                await asyncio.sleep(3600)

spec, folder, cache = sys.argv[1:]
data = DataSettings(cache=cache)
asyncio.run(main(TrainingSpec.model_validate_json(spec), Path(folder), data))
"""


async def test_workers_of_a_killed_server_write_a_checkpoint_and_end(
    data: DataSettings, tmp_path: Path
) -> None:
    arguments = (training(epochs=100_000).model_dump_json(), str(tmp_path), str(data.cache))
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVER, *arguments, stdout=asyncio.subprocess.PIPE
    )
    assert server.stdout is not None
    pids = [int(pid) for pid in (await server.stdout.readline()).split()]
    assert len(pids) >= 3
    assert all(map(alive, pids))
    server.kill()
    await server.wait()
    for pid in pids:
        assert await gone(pid)
    snapshot, warnings = Checkpoints(tmp_path / "checkpoints").read()
    assert warnings == []
    assert snapshot is not None
    assert len(snapshot.facts["history"]) >= 1
