"""Asks a process of its own what specs come to, and remembers the answers."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Self

from dropnorm.results import Plan
from dropnorm.spec import InvalidSpecError, TrainingSpec
from dropnorm_service.jobs.errors import PlannerUnavailable
from dropnorm_service.workers.asking import AskedProcess, Busy, Died
from dropnorm_service.workers.forks import ForkServer
from dropnorm_service.workers.messages import DataSettings, PlanReply, PlanRequest

_ENTRY = "dropnorm_service.workers.child.planner:main"
_ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
# Planning allocates next to nothing; a spec made to exhaust memory meets this before the machine does.
_MEMORY = 4 * 2**30
# About 100 MB. A plan has up to some hundred thousand names of classes, or a thousand layers.
_MOST_ROWS = 100_000
_NAMES_OF_A_ROW = 10  # take as much memory as a layer

log = logging.getLogger(__name__)


class PlanningFailed(Exception):
    """The planner met an unexpected error; the log has its trace."""


class ProcessPlanner:
    """Plans in a process that knows torch, as an async context manager. Implements `jobs.ports.Planner`.

    Requests are answered one after the other, and users take turns. A process that dies or does not answer is replaced.
    """

    def __init__(
        self,
        forks: ForkServer,
        *,
        data: DataSettings,
        memory_limit: Callable[[TrainingSpec], int | None],
        timeout: float = 30.0,
        remembered: int = 1024,
    ) -> None:
        """
        Args:
            forks: where processes come from; running.
            data: where data sets are found.
            memory_limit: memory in bytes of the device that a spec would run on; None: unknown.
            timeout: seconds a plan may take, and may wait for its turn before.
            remembered: plans kept at most; large ones are fewer.
        """
        self._process = AskedProcess(forks, _ENTRY, _ENVIRONMENT, _MEMORY)
        self._data = data
        self._memory_limit = memory_limit
        self._timeout = timeout
        self._remembered = remembered
        self._plans: OrderedDict[str, Plan] = OrderedDict()

    async def __aenter__(self) -> Self:
        """Start the process."""
        await self._process.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._process.end()

    def forget(self) -> None:
        """Forget all plans: a data set's name may mean another one now."""
        self._plans = OrderedDict()  # what is being planned now goes into the one before

    async def plan(self, spec: TrainingSpec, *, uploads: bool = True, user: str = "") -> Plan:
        """The plan of a spec.

        Args:
            spec: what would be trained.
            uploads: whether there are uploaded data sets; false: as if there were none.
            user: who asks.

        Raises:
            InvalidSpecError: the spec does not fit together or does not fit its data; it names
                every field.
            PlannerUnavailable: no answer within the limit.
            PlanningFailed: the planner met an unexpected error.
        """
        # The seed is all of a spec that its plan does not depend on.
        key = spec.model_copy(update={"seed": 0}).digest()
        if uploads and (known := self._plans.get(key)) is not None:
            self._plans.move_to_end(key)
            return known.model_copy(update={"spec": spec, "spec_digest": spec.digest()})
        plans = self._plans
        reply = await self._ask(spec, uploads, user)
        if reply.trace:
            log.error("the planner met an unexpected error", extra={"trace": reply.trace})
            raise PlanningFailed("a spec could not be planned")
        if reply.plan is None:
            raise InvalidSpecError(reply.problems)
        # Before the data was first read its digest is unknown; the next plan may know it.
        if reply.plan.dataset.digest is not None:
            plans[key] = reply.plan
            while len(plans) > self._remembered or sum(map(_rows, plans.values())) > _MOST_ROWS:
                plans.popitem(last=False)
        return reply.plan

    async def _ask(self, spec: TrainingSpec, uploads: bool, user: str) -> PlanReply:
        data = self._data if uploads else self._data.model_copy(update={"uploads": None})

        def request(number: int) -> PlanRequest:
            return PlanRequest(
                number=number,
                spec=spec,
                data=data,
                memory_limit_bytes=self._memory_limit(spec),
            )

        try:
            reply = await self._process.ask(request, self._timeout, user)
        except Busy:
            raise PlannerUnavailable(
                f"The planner answered other requests for {self._timeout:g} seconds; try again in a moment."
            ) from None
        except TimeoutError:
            raise PlannerUnavailable(
                f"No plan was made within {self._timeout:g} seconds; try again, or ask for less."
            ) from None
        except Died:
            raise PlannerUnavailable(
                "The planner died over this spec twice; the log may say why."
            ) from None
        assert isinstance(reply, PlanReply)
        return reply


def _rows(plan: Plan) -> int:
    """What a plan takes in memory, in layers."""
    return len(plan.layers) + len(plan.dataset.class_names) // _NAMES_OF_A_ROW
