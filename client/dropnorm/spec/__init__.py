"""The description of a training, in one place: fields, defaults, limits, units and rules.

Everything else (protobuf, YAML, JSON Schema, MLflow parameters, documentation) follows these models.
"""

from dropnorm.spec import layers
from dropnorm.spec._base import InvalidSpecError, Problem, SpecModel
from dropnorm.spec.architecture import MLP, Architecture, Sequential
from dropnorm.spec.augmentation import Augmentation, Crop, Shift
from dropnorm.spec.auto import AutoBatchSize, AutoLearningRate
from dropnorm.spec.averaging import EMA, SWA, Averaging
from dropnorm.spec.batch_sizes import BatchSizeGrowth, BatchSizeSchedule, BatchSizeSteps
from dropnorm.spec.compute import Compute
from dropnorm.spec.data import Data
from dropnorm.spec.dataset import DatasetManifest
from dropnorm.spec.dropout import (
    CurriculumDropoutSchedule,
    Dropout,
    DropoutSchedule,
    DropoutSettings,
    LinearDropoutSchedule,
    OffAfterDropoutSchedule,
)
from dropnorm.spec.evaluation import EvaluationSettings
from dropnorm.spec.export import ExportFormat, ExportSettings
from dropnorm.spec.families import VGG, AlexNet, DenseNet, GoogLeNet, ResNet
from dropnorm.spec.generative import GAN, VAE
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
from dropnorm.spec.optimization import EarlyStopping, GradientClipping, Optimization
from dropnorm.spec.optimizers import (
    SGD,
    Adagrad,
    Adam,
    AdamW,
    Muon,
    NAdam,
    Optimizer,
    RAdam,
    RMSprop,
)
from dropnorm.spec.prediction import DropoutSampling, Tensor
from dropnorm.spec.recurrent import RNNEncoderDecoder, Seq2Seq
from dropnorm.spec.regularization import Regularization
from dropnorm.spec.schedules import (
    ConstantSchedule,
    CosineRestartsSchedule,
    CosineSchedule,
    ExponentialSchedule,
    InverseSqrtSchedule,
    MultiStepSchedule,
    OneCycleSchedule,
    PlateauSchedule,
    PolynomialSchedule,
    Schedule,
    StepSchedule,
    Warmup,
)
from dropnorm.spec.submission import Submission
from dropnorm.spec.training_spec import TrainingSpec
from dropnorm.spec.transformers import BERT, Transformer

__all__ = [
    "BERT",
    "EMA",
    "GAN",
    "MLP",
    "SGD",
    "SWA",
    "VAE",
    "VGG",
    "ActivationFunction",
    "Adagrad",
    "Adam",
    "AdamW",
    "AlexNet",
    "Architecture",
    "Augmentation",
    "AutoBatchSize",
    "AutoLearningRate",
    "Averaging",
    "BatchNorm",
    "BatchNormSettings",
    "BatchSizeGrowth",
    "BatchSizeSchedule",
    "BatchSizeSteps",
    "Compute",
    "ConstantSchedule",
    "CosineRestartsSchedule",
    "CosineSchedule",
    "Crop",
    "CurriculumDropoutSchedule",
    "Data",
    "DatasetManifest",
    "DenseNet",
    "Dropout",
    "DropoutSampling",
    "DropoutSchedule",
    "DropoutSettings",
    "EarlyStopping",
    "EvaluationSettings",
    "ExponentialSchedule",
    "ExportFormat",
    "ExportSettings",
    "GoogLeNet",
    "GradientClipping",
    "GroupNorm",
    "Initialization",
    "InstanceNorm",
    "InvalidSpecError",
    "InverseSqrtSchedule",
    "Layer",
    "LayerNorm",
    "LinearDropoutSchedule",
    "MultiStepSchedule",
    "Muon",
    "NAdam",
    "Norm",
    "OffAfterDropoutSchedule",
    "OneCycleSchedule",
    "Optimization",
    "Optimizer",
    "PlateauSchedule",
    "PolynomialSchedule",
    "Problem",
    "RAdam",
    "RMSNorm",
    "RMSprop",
    "RNNEncoderDecoder",
    "Regularization",
    "ResNet",
    "Schedule",
    "Seq2Seq",
    "Sequential",
    "Shift",
    "SpecModel",
    "StepSchedule",
    "Submission",
    "Tensor",
    "TrainingSpec",
    "Transformer",
    "Warmup",
    "layers",
]
