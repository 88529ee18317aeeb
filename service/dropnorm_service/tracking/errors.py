"""What both ends of the mirror raise."""


class MlflowUnavailable(Exception):
    """MLflow does not answer as it should; everything can be written again later, nothing is doubled."""


class NotTaken(MlflowUnavailable):
    """MLflow does not take one thing now, while it takes others; the job that it is of can wait by itself."""


class UnsupportedTrackingUri(Exception):
    """A tracking URI at which MLflow has no store that can be written to; the message says which there are."""
