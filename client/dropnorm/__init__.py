"""dropnorm: train neural networks as a service, and learn what dropout and batch normalisation did for them.

    import dropnorm as dn

    spec = dn.TrainingSpec(architecture=dn.MLP(hidden=[128, 64]), data=dn.Data(dataset="digits"))
    with dn.Client("localhost:50051") as client:  # or dn.local()
        print(client.train(spec).result())

Names are loaded when they are first used: describing a training needs neither gRPC nor protobuf.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dropnorm.aio import AsyncClient, AsyncJobHandle
    from dropnorm.client import Client, JobHandle
    from dropnorm.embedded import LocalService, local
    from dropnorm.errors import (
        AlreadyExists,
        ClientClosed,
        DeadlineExceeded,
        DropnormError,
        Internal,
        InvalidRequest,
        JobCancelled,
        JobFailed,
        NotFound,
        PermissionDenied,
        ResourceExhausted,
        ResultTimeout,
        StartFailed,
        Unauthenticated,
        Unavailable,
        Unimplemented,
        WrongState,
    )
    from dropnorm.results import (
        CheckpointWritten,
        ClassMetrics,
        DatasetLoaded,
        DatasetSummary,
        EpochCompleted,
        EpochMetrics,
        Evaluated,
        Evaluation,
        Event,
        JobError,
        Lint,
        LogLine,
        MemoryEstimate,
        Metrics,
        Payload,
        Phase,
        Plan,
        PlannedLayer,
        Progress,
        Progressed,
        SequenceSummary,
        Slot,
        State,
        StateChanged,
        SystemMetrics,
        Task,
        Tracked,
        TrainingCost,
        TrainingJob,
        Warned,
        Worker,
    )
    from dropnorm.results._plot import plot_comparison
    from dropnorm.spec import (
        GAN,
        MLP,
        SGD,
        VAE,
        VGG,
        ActivationFunction,
        Adagrad,
        Adam,
        AdamW,
        AlexNet,
        Architecture,
        BatchNorm,
        BatchNormSettings,
        Compute,
        ConstantSchedule,
        CosineSchedule,
        CurriculumDropoutSchedule,
        Data,
        DenseNet,
        Dropout,
        DropoutSchedule,
        DropoutSettings,
        EarlyStopping,
        EvaluationSettings,
        GoogLeNet,
        GradientClipping,
        GroupNorm,
        Initialization,
        InstanceNorm,
        InvalidSpecError,
        Layer,
        LayerNorm,
        LinearDropoutSchedule,
        Muon,
        NAdam,
        OffAfterDropoutSchedule,
        OneCycleSchedule,
        Optimization,
        Optimizer,
        Problem,
        RAdam,
        Regularization,
        ResNet,
        RMSNorm,
        RMSprop,
        Schedule,
        Sequential,
        StepSchedule,
        TrainingSpec,
        Warmup,
        layers,
    )

__all__ = [
    "GAN",
    "MLP",
    "SGD",
    "VAE",
    "VGG",
    "ActivationFunction",
    "Adagrad",
    "Adam",
    "AdamW",
    "AlexNet",
    "AlreadyExists",
    "Architecture",
    "AsyncClient",
    "AsyncJobHandle",
    "BatchNorm",
    "BatchNormSettings",
    "CheckpointWritten",
    "ClassMetrics",
    "Client",
    "ClientClosed",
    "Compute",
    "ConstantSchedule",
    "CosineSchedule",
    "CurriculumDropoutSchedule",
    "Data",
    "DatasetLoaded",
    "DatasetSummary",
    "DeadlineExceeded",
    "DenseNet",
    "DropnormError",
    "Dropout",
    "DropoutSchedule",
    "DropoutSettings",
    "EarlyStopping",
    "EpochCompleted",
    "EpochMetrics",
    "Evaluated",
    "Evaluation",
    "EvaluationSettings",
    "Event",
    "GoogLeNet",
    "GradientClipping",
    "GroupNorm",
    "Initialization",
    "InstanceNorm",
    "Internal",
    "InvalidRequest",
    "InvalidSpecError",
    "JobCancelled",
    "JobError",
    "JobFailed",
    "JobHandle",
    "Layer",
    "LayerNorm",
    "LinearDropoutSchedule",
    "Lint",
    "LocalService",
    "LogLine",
    "MemoryEstimate",
    "Metrics",
    "Muon",
    "NAdam",
    "NotFound",
    "OffAfterDropoutSchedule",
    "OneCycleSchedule",
    "Optimization",
    "Optimizer",
    "Payload",
    "PermissionDenied",
    "Phase",
    "Plan",
    "PlannedLayer",
    "Problem",
    "Progress",
    "Progressed",
    "RAdam",
    "RMSNorm",
    "RMSprop",
    "Regularization",
    "ResNet",
    "ResourceExhausted",
    "ResultTimeout",
    "Schedule",
    "SequenceSummary",
    "Sequential",
    "Slot",
    "StartFailed",
    "State",
    "StateChanged",
    "StepSchedule",
    "SystemMetrics",
    "Task",
    "Tracked",
    "TrainingCost",
    "TrainingJob",
    "TrainingSpec",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Warmup",
    "Warned",
    "Worker",
    "WrongState",
    "layers",
    "local",
    "plot_comparison",
]

# Where names are at home, from light to heavy; the first that has a name is asked for it.
_HOMES = (
    "dropnorm.spec",
    "dropnorm.results",
    "dropnorm.errors",
    "dropnorm.client",
    "dropnorm.aio",
    "dropnorm.embedded",
    "dropnorm.results._plot",
)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    for home in map(import_module, _HOMES if name in __all__ else ()):
        if hasattr(home, name):
            globals()[name] = getattr(home, name)  # from now on an attribute like any other
            return globals()[name]
    raise AttributeError(f"module 'dropnorm' has no attribute {name!r}")


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # 40 ms that hardly anyone needs

    try:
        return version("dropnorm")
    except PackageNotFoundError:  # a source tree on the path, not installed
        return "0+unknown"


def __dir__() -> list[str]:
    return __all__
