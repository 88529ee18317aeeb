"""What both ends of the mirror raise."""


class MlflowUnavailable(Exception):
    """MLflow does not answer as it should; everything can be written again later, nothing is doubled."""
