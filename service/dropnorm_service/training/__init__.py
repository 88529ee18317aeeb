"""Training as a library: from a `TrainingSpec` to a plan, a model and an evaluation, with torch alone.

It knows nothing of servers, processes, databases or MLflow, and works in a notebook.
"""

from dropnorm_service.training.auto import with_batch_size
from dropnorm_service.training.checkpoint import Checkpoints
from dropnorm_service.training.checks import check
from dropnorm_service.training.data import DatasetCache, DataUnavailable, SplitData
from dropnorm_service.training.device import choose_device
from dropnorm_service.training.errors import (
    BadData,
    DeviceError,
    Diverged,
    OutOfMemory,
    ResultTooLarge,
    TimeLimit,
    TrainingError,
    device_reported,
)
from dropnorm_service.training.export_formats import CannotExport, read_portable
from dropnorm_service.training.exporting import Deviates, export_model
from dropnorm_service.training.fitting import fit
from dropnorm_service.training.judging import FitResult
from dropnorm_service.training.loading import load_data
from dropnorm_service.training.model import build_model
from dropnorm_service.training.network import Network
from dropnorm_service.training.optimizers import build_optimizer
from dropnorm_service.training.pictures import Pictures, load_pictures, save_pictures
from dropnorm_service.training.planning import plan
from dropnorm_service.training.reporting import Interrupted, Order, Resumed
from dropnorm_service.training.saved import (
    Predictor,
    load_examples,
    load_model,
    load_saved,
    save_model,
)
from dropnorm_service.training.schedules import learning_rates
from dropnorm_service.training.serving import ServedModel, TooManyInputs

__all__ = [
    "BadData",
    "CannotExport",
    "Checkpoints",
    "DataUnavailable",
    "DatasetCache",
    "Deviates",
    "DeviceError",
    "Diverged",
    "FitResult",
    "Interrupted",
    "Network",
    "Order",
    "OutOfMemory",
    "Pictures",
    "Predictor",
    "ResultTooLarge",
    "Resumed",
    "ServedModel",
    "SplitData",
    "TimeLimit",
    "TooManyInputs",
    "TrainingError",
    "build_model",
    "build_optimizer",
    "check",
    "choose_device",
    "device_reported",
    "export_model",
    "fit",
    "learning_rates",
    "load_data",
    "load_examples",
    "load_model",
    "load_pictures",
    "load_saved",
    "plan",
    "read_portable",
    "save_model",
    "save_pictures",
    "with_batch_size",
]
