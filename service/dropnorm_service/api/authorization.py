"""Who may call what, and how much he may say: the one table of it. A method that is not in it is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from dropnorm_service.jobs.callers import Caller, Role
from dropnorm_service.jobs.errors import MethodUndeclared, RoleRequired


@dataclass(frozen=True)
class Rule:
    """Who may call a method, with how large a message, and whether the audit log hears of it."""

    role: Role | None
    """The least role that may call it; None: anybody, without a token."""
    changes: str = ""
    """Of a method that changes something: the field of its request that names what; otherwise empty."""
    largest: int = 2**20
    """Bytes that a message to it may have."""


_ANYBODY = Rule(None, largest=4 * 2**10)
_LOOKS = Rule(Role.VIEWER)


_SPEC = 4 * 2**20
_CHUNK = 4 * 2**20  # twice what a chunk of an upload has, so that the servicer says what is wrong
LARGEST = 20 * 2**20
"""A Tensor of 16 MiB with what is around it, and some to spare: what is too large is mostly told by a sentence."""


def _makes(field: str, largest: int = Rule.largest) -> Rule:
    return Rule(Role.USER, changes=field, largest=largest)


_TRAINING = "/dropnorm.v1.TrainingService"
_DATASETS = "/dropnorm.v1.DatasetService"
_MODELS = "/dropnorm.v1.ModelService"

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        f"{_TRAINING}/CreateTrainingJob": _makes("training_job_id", _SPEC),
        f"{_TRAINING}/GetTrainingJob": _LOOKS,
        f"{_TRAINING}/ListTrainingJobs": _LOOKS,
        f"{_TRAINING}/WatchTrainingJob": _LOOKS,
        f"{_TRAINING}/CancelTrainingJob": _makes("name"),
        f"{_TRAINING}/PauseTrainingJob": _makes("name"),
        f"{_TRAINING}/ResumeTrainingJob": _makes("name"),
        f"{_TRAINING}/DeleteTrainingJob": _makes("name"),
        f"{_TRAINING}/UpdateTrainingJob": _makes("training_job.name"),
        f"{_TRAINING}/PlanTrainingJob": Rule(Role.VIEWER, largest=_SPEC),
        f"{_TRAINING}/ListWorkers": _LOOKS,
        f"{_DATASETS}/UploadDataset": _makes("header.dataset_id", _CHUNK),
        f"{_DATASETS}/QueryUpload": Rule(Role.USER),
        f"{_DATASETS}/ImportDataset": _makes("dataset_id"),
        f"{_DATASETS}/GetDataset": _LOOKS,
        f"{_DATASETS}/ListDatasets": _LOOKS,
        f"{_DATASETS}/UpdateDataset": _makes("dataset.name"),
        f"{_DATASETS}/DeleteDataset": _makes("name"),
        f"{_MODELS}/Predict": Rule(Role.VIEWER, largest=LARGEST),
        f"{_MODELS}/ExportModel": _makes("model"),
        f"{_MODELS}/GetModelExport": _LOOKS,
        f"{_MODELS}/DownloadModelExport": _LOOKS,
        f"{_MODELS}/RegisterModel": _makes("model_id"),
        f"{_MODELS}/GetModel": _LOOKS,
        f"{_MODELS}/ListModels": _LOOKS,
        f"{_MODELS}/UpdateModel": _makes("model.name"),
        f"{_MODELS}/SetModelAlias": _makes("name"),
        f"{_MODELS}/DeleteModelAlias": _makes("name"),
        # Load balancers and orchestrators have no token.
        "/grpc.health.v1.Health/Check": _ANYBODY,
        "/grpc.health.v1.Health/List": _ANYBODY,
        "/grpc.health.v1.Health/Watch": _ANYBODY,
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _LOOKS,
    }
)
"""Every method of every service behind the port."""


def rule_of(method: str) -> Rule:
    """The rule of a method, `/package.Service/Method`.

    Raises:
        MethodUndeclared: it has none.
    """
    try:
        return RULES[method]
    except KeyError:
        raise MethodUndeclared(method) from None


def authorize(caller: Caller, rule: Rule, method: str) -> None:
    """Let a caller pass, or not.

    Raises:
        RoleRequired: the rule asks for a higher role.
    """
    if rule.role is not None and caller.role < rule.role:
        raise RoleRequired(caller, rule.role, method.rpartition("/")[2])
