"""Training as a library: from a `TrainingSpec` to a plan, a model and an evaluation, with torch alone.

It knows nothing of servers, processes, databases or MLflow, and works in a notebook.
"""

from dropnorm_service.training.checks import check
from dropnorm_service.training.errors import BadData, Diverged, OutOfMemory, TrainingError
from dropnorm_service.training.model import Network, build_model
from dropnorm_service.training.optimizers import build_optimizer
from dropnorm_service.training.planning import plan
from dropnorm_service.training.schedules import learning_rate

__all__ = [
    "BadData",
    "Diverged",
    "Network",
    "OutOfMemory",
    "TrainingError",
    "build_model",
    "build_optimizer",
    "check",
    "learning_rate",
    "plan",
]
