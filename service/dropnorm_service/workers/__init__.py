"""Where jobs run: processes forked from one that has torch loaded, and what the server says to them.

The modules here are the server's side and load no torch; `child` is the processes' side.
"""

from dropnorm_service.workers.executor import LocalExecutor
from dropnorm_service.workers.exporter import ExportFailed, ProcessExporter
from dropnorm_service.workers.forks import ForkServer, StartFailed
from dropnorm_service.workers.inspector import ProcessInspector
from dropnorm_service.workers.messages import DataSettings
from dropnorm_service.workers.planner import PlanningFailed, ProcessPlanner
from dropnorm_service.workers.predictor import PredictionFailed, ProcessPredictor

__all__ = [
    "DataSettings",
    "ExportFailed",
    "ForkServer",
    "LocalExecutor",
    "PlanningFailed",
    "PredictionFailed",
    "ProcessExporter",
    "ProcessInspector",
    "ProcessPlanner",
    "ProcessPredictor",
    "StartFailed",
]
