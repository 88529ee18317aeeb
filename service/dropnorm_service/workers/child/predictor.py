"""Lets models predict, one request after the other, until the server goes away."""

from __future__ import annotations

import os
import socket
import traceback
from collections import OrderedDict
from pathlib import Path

import torch

from dropnorm.spec import InvalidSpecError, Problem
from dropnorm_service.training import BadData, ServedModel, TooManyInputs
from dropnorm_service.workers.child.link import Link
from dropnorm_service.workers.messages import AnswerReply, AnswerRequest

_KEPT = 4
"""Models kept in memory."""


def main(connection: socket.socket) -> None:
    """Answer requests until the server goes away."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    link, models = Link(connection), _Models()
    while request := link.receive():
        if not isinstance(request, AnswerRequest):
            raise TypeError(f"a predictor cannot answer {request.kind}")
        link.send(_answer(request, models))


class _Models:
    """The models used last."""

    def __init__(self) -> None:
        self._models: OrderedDict[tuple[Path, int, int], ServedModel] = OrderedDict()

    def get(self, folder: Path) -> ServedModel:
        # A job's id may be used again once the job is gone: the file says whether it is the same model.
        state = (folder / "model.json").stat()
        key = (folder, state.st_ino, state.st_mtime_ns)
        if key not in self._models:
            self._models[key] = ServedModel(folder)
            if len(self._models) > _KEPT:
                self._models.popitem(last=False)
        self._models.move_to_end(key)
        return self._models[key]


def _answer(request: AnswerRequest, models: _Models) -> AnswerReply:
    number = request.number
    try:
        model = models.get(request.folder)
        said = model.answer(request.training_job, request.inputs, request.sampling)
        return AnswerReply(number=number, prediction=said)
    except TooManyInputs as error:
        return AnswerReply(number=number, problems=error.problems, limit=error.limit)
    except InvalidSpecError as error:
        return AnswerReply(number=number, problems=error.problems)
    except FileNotFoundError:
        return AnswerReply(number=number, unusable="its files are gone; train it again")
    except BadData as error:
        return AnswerReply(number=number, unusable=error.message)
    except (MemoryError, torch.OutOfMemoryError):
        text = "the machine has no memory left for so many inputs; give fewer at a time"
        return AnswerReply(number=number, problems=(Problem("inputs", text),))
    except Exception:
        return AnswerReply(number=number, trace=traceback.format_exc())
