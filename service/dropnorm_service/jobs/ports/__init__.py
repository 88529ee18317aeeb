"""What the domain asks of the outside world. Adapters are in `store`, `workers` and `tracking`."""

from collections.abc import Callable
from datetime import datetime

from dropnorm_service.jobs.ports.execution import (
    CHECKPOINTS,
    EXPORTS,
    MODEL,
    Broken,
    Executor,
    Finished,
    Launch,
    Lost,
    Order,
    Outcome,
    Stopped,
)
from dropnorm_service.jobs.ports.models import (
    Exporter,
    ModelOwners,
    ModelPage,
    ModelRecord,
    Planner,
    Predictor,
    Registry,
)
from dropnorm_service.jobs.ports.store import (
    Change,
    DeletedJob,
    JobPage,
    JobQuery,
    JobStore,
    RequestAccepted,
    RequestRecord,
)

Clock = Callable[[], datetime]
"""The time now, in UTC."""

__all__ = [
    "CHECKPOINTS",
    "EXPORTS",
    "MODEL",
    "Broken",
    "Change",
    "Clock",
    "DeletedJob",
    "Executor",
    "Exporter",
    "Finished",
    "JobPage",
    "JobQuery",
    "JobStore",
    "Launch",
    "Lost",
    "ModelOwners",
    "ModelPage",
    "ModelRecord",
    "Order",
    "Outcome",
    "Planner",
    "Predictor",
    "Registry",
    "RequestAccepted",
    "RequestRecord",
    "Stopped",
]
