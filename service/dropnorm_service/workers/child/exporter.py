"""Writes one model in another form, and ends."""

from __future__ import annotations

import os
import socket
import traceback

import torch

from dropnorm.spec import InvalidSpecError
from dropnorm_service.durable import no_room
from dropnorm_service.training import (
    BadData,
    CannotExport,
    DataUnavailable,
    Deviates,
    export_model,
    load_saved,
)
from dropnorm_service.workers.child.data import dataset_cache
from dropnorm_service.workers.child.link import Link
from dropnorm_service.workers.messages import ExportReply, ExportRequest


def main(connection: socket.socket) -> None:
    """Wait for a request, and answer it."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    link = Link(connection)
    request = link.receive()
    if isinstance(request, ExportRequest):
        link.send(_answer(request))


def _answer(request: ExportRequest) -> ExportReply:
    number = request.number
    try:
        saved = load_saved(request.model)
        dataset = dataset_cache(request.data).load(saved.spec.data.dataset)
        export = export_model(
            saved, dataset, request.settings, name=request.name, folder=request.folder
        )
        return ExportReply(number=number, export=export)
    except InvalidSpecError as error:  # it was fine when the job was accepted
        why = f"its test split, which the proof needs, is not there any more ({error})"
        return ExportReply(number=number, unusable=why)
    except FileNotFoundError:
        return ExportReply(number=number, unusable="its files are gone; train it again")
    except BadData as error:
        return ExportReply(number=number, unusable=error.message)
    except DataUnavailable as error:
        why = f"its test split, which the proof needs, cannot be had: {error}"
        return ExportReply(number=number, unusable=why)
    except CannotExport as error:
        refused, deviates = str(error), isinstance(error, Deviates)
        return ExportReply(number=number, refused=refused, deviates=deviates)
    except OSError as error:
        full = no_room(error)
        trace = "" if full else traceback.format_exc()
        return ExportReply(number=number, disk_full=full, trace=trace)
    except Exception:
        return ExportReply(number=number, trace=traceback.format_exc())
