"""The model of a run in MLflow."""

from __future__ import annotations

from mlflow import MlflowClient
from mlflow.entities import LoggedModel

NAME = "model"


def model_of(client: MlflowClient, run_id: str, experiment_id: str) -> LoggedModel | None:
    """The model that the mirror logged for a run; None: there is none, perhaps no longer.

    Args:
        client: the store.
        run_id: whose.
        experiment_id: of the run.
    """
    found = client.search_logged_models(
        [experiment_id], filter_string=f"source_run_id = '{run_id}'"
    )
    return next((model for model in found if model.name == NAME), None)
