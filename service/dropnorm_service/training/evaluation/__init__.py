"""Evaluation that knows dropout and batch norm: each measurement a function of a network, a split and settings."""

from dropnorm_service.training.evaluation.layers import layer_report, report_step, too_many_reports
from dropnorm_service.training.evaluation.requested import Measured, measure, misfits
from dropnorm_service.training.evaluation.trained import Trained

__all__ = [
    "Measured",
    "Trained",
    "layer_report",
    "measure",
    "misfits",
    "report_step",
    "too_many_reports",
]
