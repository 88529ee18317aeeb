"""Who runs where: slots, what fits into them, and why something never will."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Literal, NamedTuple

from dropnorm.results import Slot
from dropnorm.spec import TrainingSpec
from dropnorm_service.jobs.ports import Finished, Launch, Lost, Outcome, Stopped
from dropnorm_service.workers import machine
from dropnorm_service.workers.memory import share
from dropnorm_service.workers.messages import DEVICE_ERROR, Gpu

_CORES_PER_SLOT = 4
# What a worker on a CPU takes before it trains: torch, its libraries and its interpreter; 270 MiB were measured.
_OWN_MEMORY = 300 * 2**20
# A slot whose device broke is passed over for so many seconds, twice as long each further time.
_FIRST_REST = 60.0
_LONGEST_REST = 3600.0

Device = Literal["cpu", "cuda"]

log = logging.getLogger(__name__)


class Seat:
    """A slot and who has it."""

    def __init__(self, slot: Slot, visible: str = "") -> None:
        """`visible` is what CUDA_VISIBLE_DEVICES calls the slot's GPU."""
        self._slot = slot
        self.visible = visible
        self.launch: Launch | None = None
        self.faults = 0
        """How often in a row its device has broken."""
        self._rested = 0.0

    @property
    def id(self) -> str:
        """The slot's name."""
        return self._slot.id

    @property
    def device(self) -> Device:
        """The slot's kind of device."""
        return self._slot.device

    @property
    def memory_bytes(self) -> int:
        """Memory of its device."""
        return self._slot.memory_bytes

    @property
    def threads(self) -> int:
        """CPU threads of its worker."""
        return self._slot.threads

    @property
    def rest(self) -> float:
        """Seconds for which it is to be passed over, since its device broke; 0 when it is not."""
        return max(0.0, self._rested - time.monotonic()) if self.faults else 0.0

    def broke(self) -> None:
        """Note that its device broke under an attempt."""
        rest = min(_FIRST_REST * 2.0 ** min(self.faults, 62), _LONGEST_REST)
        self.faults += 1
        self._rested = time.monotonic() + rest

    def worked(self) -> None:
        """Note that an attempt ended well in it."""
        self.faults = 0

    def view(self) -> Slot:
        """The slot as others see it."""
        if self.launch is None:
            return self._slot
        return self._slot.model_copy(
            update={
                "training_job": f"trainingJobs/{self.launch.job_id}",
                "attempt": self.launch.attempt,
            }
        )


def note(outcome: Outcome, seats: Sequence[Seat]) -> None:
    """Let slots remember what an attempt tells of their devices."""
    for seat in seats:
        if isinstance(outcome, Lost) and outcome.error.reason == DEVICE_ERROR:
            seat.broke()
            log.error(
                "the device of slot %s broke %d times in a row; it rests for %.0f seconds",
                *(seat.id, seat.faults, seat.rest),
            )
        elif isinstance(outcome, Finished | Stopped):
            seat.worked()


class Need(NamedTuple):
    """What a spec asks for."""

    device: Device
    slots: int


class SlotTable:
    """Every slot of this machine."""

    def __init__(self, seats: Sequence[Seat], worker_memory: int = 0) -> None:
        """`worker_memory`: bytes of the machine's memory that a worker in any of them may use."""
        self.seats = tuple(seats)
        self.worker_memory = worker_memory

    @classmethod
    def of_machine(
        cls,
        gpus: Sequence[Gpu],
        *,
        cpu_slots: int | None,
        threads: int | None,
        worker_memory: int | None = None,
    ) -> SlotTable:
        """A slot per GPU, and shares of the CPU.

        Args:
            gpus: those to use.
            cpu_slots: shares of the CPU; None: one per four cores, at least one.
            threads: CPU threads of each slot; None: the cores divided by the CPU slots.
            worker_memory: bytes of the machine's memory that a worker may use; None: its share.
        """
        cores = machine.usable_cores()
        if cpu_slots is None:
            cpu_slots = max(1, cores // _CORES_PER_SLOT)
        if threads is None:
            threads = max(1, cores // max(1, cpu_slots, len(gpus)))
        processor = machine.processor_name()
        memory = worker_memory or share(cpu_slots + len(gpus))
        shares = [
            Seat(
                Slot(
                    id=f"cpu-{number}",
                    device="cpu",
                    device_name=processor,
                    threads=threads,
                    memory_bytes=max(0, memory - _OWN_MEMORY),
                )
            )
            for number in range(cpu_slots)
        ]
        accelerators = [
            Seat(
                Slot(
                    id=f"cuda-{number}",
                    device="cuda",
                    device_name=gpu.name,
                    threads=threads,
                    memory_bytes=gpu.memory_bytes,
                ),
                gpu.visible,
            )
            for number, gpu in enumerate(gpus)
        ]
        return cls([*accelerators, *shares], memory)

    def need(self, spec: TrainingSpec) -> Need:
        """What a spec asks for here, where `auto` takes a GPU if there is any."""
        device, gpus = spec.compute.device, spec.compute.gpus
        if device == "auto" and gpus is None:
            gpus = 1 if self._all("cuda") else 0
        elif device == "cuda" and gpus is None:
            gpus = 1
        return Need("cuda", gpus) if gpus else Need("cpu", 1)

    def obstacle(self, spec: TrainingSpec) -> str | None:
        """Why a spec can never run here; None when it can."""
        need = self.need(spec)
        there = len(self._all(need.device))
        if need.slots <= there:
            return None
        if need.device == "cpu":
            return "this service has no slot on the CPU; choose device cuda, or raise its cpu_slots"
        asked = "a GPU" if need.slots == 1 else f"{need.slots} GPUs"
        has = {0: "none", 1: "one"}.get(there, str(there))
        advice = "choose device cpu or auto" if there == 0 else "ask for fewer"
        return f"the job asks for {asked} and this service has {has}; {advice}"

    def fits(self, spec: TrainingSpec) -> bool:
        """Whether enough slots are free now."""
        need = self.need(spec)
        return len(self._free(need)) >= need.slots

    def rest(self) -> float | None:
        """Seconds until a slot that is passed over is used again; None: none is passed over."""
        rests = [seat.rest for seat in self.seats if seat.rest]
        return min(rests, default=None)

    def memory_limit(self, spec: TrainingSpec) -> int | None:
        """Memory in bytes that the spec can count on, on the device it would run on; None: it has none."""
        seats = self._all(self.need(spec).device)
        return min((seat.memory_bytes for seat in seats), default=None)

    def take(self, launch: Launch) -> tuple[Seat, ...]:
        """The slots for an attempt, no longer free.

        Raises:
            RuntimeError: too few are free; ask `fits` first.
        """
        need = self.need(launch.spec)
        seats = self._free(need)[: need.slots]
        if len(seats) < need.slots:
            raise RuntimeError(f"no slot is free for job {launch.job_id}")
        for seat in seats:
            seat.launch = launch
        return seats

    def _all(self, device: Device) -> tuple[Seat, ...]:
        return tuple(seat for seat in self.seats if seat.device == device)

    def _free(self, need: Need) -> tuple[Seat, ...]:
        """The free slots of a kind, the soundest first.

        A slot whose device broke is passed over for a while, also when all others are taken: its next attempt would
        break too. Where there are too few others, it has to do.
        """
        seats = self._all(need.device)
        sound = tuple(seat for seat in seats if not seat.rest)
        if len(sound) >= need.slots:
            seats = sound
        free = (seat for seat in seats if seat.launch is None)
        return tuple(sorted(free, key=lambda seat: seat.faults))
