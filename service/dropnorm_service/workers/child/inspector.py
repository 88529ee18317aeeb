"""Looks at one uploaded data set, in a process that a hostile file may bring down."""

from __future__ import annotations

import socket
import traceback
from datetime import UTC, datetime

from dropnorm.results import Dataset
from dropnorm.spec import Problem
from dropnorm_service.training import BadData
from dropnorm_service.training.data import CATALOG, UploadLimits, inspect_upload
from dropnorm_service.workers.child.link import Link
from dropnorm_service.workers.messages import Inspect, Inspected


def main(connection: socket.socket) -> None:
    """Answer one request."""
    link = Link(connection)
    request = link.receive()
    if isinstance(request, Inspect):
        link.send(answer(request))


def answer(request: Inspect) -> Inspected:
    """What a file is, or what is wrong with it."""
    if request.dataset_id in CATALOG:
        text = f"{request.dataset_id} is the name of a built-in data set; choose another"
        return Inspected(problems=(Problem("dataset_id", text),))
    limits = UploadLimits(samples=request.samples, values=request.values)
    try:
        info, manifest, digest = inspect_upload(request.dataset_id, request.path, limits)
    except BadData as error:
        return Inspected(problems=(Problem("", f"The file is no data set: {error}"),))
    except MemoryError:
        return Inspected(
            problems=(Problem("", "The file is too large for this machine's memory."),)
        )
    except Exception:
        return Inspected(trace=traceback.format_exc())
    dataset = Dataset(
        name=f"datasets/{info.name}",
        task=info.task,
        input_shape=info.input_shape,
        outputs=info.outputs,
        class_names=info.class_names,
        feature_names=manifest.feature_names,
        samples=info.samples,
        test_samples=info.test_samples,
        sequences=info.sequences,
        size_bytes=request.path.stat().st_size,
        sha256="",
        digest=digest,
        create_time=datetime.now(UTC),
    )
    return Inspected(dataset=dataset)
