"""The description of a training, in one place: fields, defaults, limits, units and rules.

Everything else (protobuf, YAML, JSON Schema, MLflow parameters, documentation) follows these models.
"""

from dropnorm.spec import layers
from dropnorm.spec._base import InvalidSpecError, Problem, SpecModel
from dropnorm.spec.architecture import MLP, Architecture, Sequential
from dropnorm.spec.compute import Compute, EvaluationSettings
from dropnorm.spec.data import Data
from dropnorm.spec.dropout import Dropout, DropoutSettings
from dropnorm.spec.families import VGG, AlexNet, DenseNet, GoogLeNet, ResNet
from dropnorm.spec.initialization import Initialization
from dropnorm.spec.layers import ActivationFunction, Layer
from dropnorm.spec.norms import (
    BatchNorm,
    BatchNormSettings,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    Norm,
    RMSNorm,
)
from dropnorm.spec.optimization import (
    SGD,
    Adam,
    AdamW,
    ConstantSchedule,
    CosineSchedule,
    EarlyStopping,
    GradientClipping,
    OneCycleSchedule,
    Optimization,
    Optimizer,
    RMSprop,
    Schedule,
    StepSchedule,
    Warmup,
)
from dropnorm.spec.regularization import Regularization
from dropnorm.spec.submission import Submission
from dropnorm.spec.training_spec import TrainingSpec

__all__ = [
    "MLP",
    "SGD",
    "VGG",
    "ActivationFunction",
    "Adam",
    "AdamW",
    "AlexNet",
    "Architecture",
    "BatchNorm",
    "BatchNormSettings",
    "Compute",
    "ConstantSchedule",
    "CosineSchedule",
    "Data",
    "DenseNet",
    "Dropout",
    "DropoutSettings",
    "EarlyStopping",
    "EvaluationSettings",
    "GoogLeNet",
    "GradientClipping",
    "GroupNorm",
    "Initialization",
    "InstanceNorm",
    "InvalidSpecError",
    "Layer",
    "LayerNorm",
    "Norm",
    "OneCycleSchedule",
    "Optimization",
    "Optimizer",
    "Problem",
    "RMSNorm",
    "RMSprop",
    "Regularization",
    "ResNet",
    "Schedule",
    "Sequential",
    "SpecModel",
    "StepSchedule",
    "Submission",
    "TrainingSpec",
    "Warmup",
    "layers",
]
