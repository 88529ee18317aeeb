"""The MLflow mirror: follows the journal and writes it to MLflow, in processes of its own."""

from dropnorm_service.tracking.config import TrackingConfig
from dropnorm_service.tracking.errors import UnsupportedTrackingUri
from dropnorm_service.tracking.journal import untraced
from dropnorm_service.tracking.registry import MlflowRegistry
from dropnorm_service.tracking.tracker import Tracker

__all__ = ["MlflowRegistry", "Tracker", "TrackingConfig", "UnsupportedTrackingUri", "untraced"]
