"""The processes that write to MLflow; started as `python -m dropnorm_service.tracking.mirror`, never imported."""
