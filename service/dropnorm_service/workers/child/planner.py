"""Answers what specs come to, one after the other, until the server goes away."""

from __future__ import annotations

import socket
import traceback

from dropnorm.spec import InvalidSpecError, Problem
from dropnorm_service.training import plan
from dropnorm_service.workers.child.data import dataset_cache
from dropnorm_service.workers.child.link import Link
from dropnorm_service.workers.messages import PlanReply, PlanRequest


def main(connection: socket.socket) -> None:
    """Answer requests until the server goes away."""
    link = Link(connection)
    while request := link.receive():
        if not isinstance(request, PlanRequest):
            raise TypeError(f"a planner cannot answer {request.kind}")
        link.send(_answer(request))


def _answer(request: PlanRequest) -> PlanReply:
    spec, settings = request.spec, request.data
    try:
        cache = dataset_cache(settings)
        answer = plan(spec, cache.summarize(spec), memory_limit_bytes=request.memory_limit_bytes)
        return PlanReply(number=request.number, plan=answer)
    except InvalidSpecError as error:
        return PlanReply(number=request.number, problems=error.problems)
    except MemoryError:
        text = "planning this network alone exhausts the planner's memory; make it smaller"
        return PlanReply(number=request.number, problems=(Problem("architecture", text),))
    except Exception:
        return PlanReply(number=request.number, trace=traceback.format_exc())
