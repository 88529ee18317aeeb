"""Jobs that can be told apart, and whether what the service says of one is what was asked for."""

from __future__ import annotations

from tests.benchmarks.services import DIGITS

from dropnorm import wire
from dropnorm.spec import Submission
from dropnorm.v1 import training_job_pb2
from dropnorm.v1 import training_service_pb2 as pb

_QUEUED = training_job_pb2.TrainingJob.STATE_QUEUED


def job_id(client: int, number: int) -> str:
    """The id of a client's job of a number."""
    return f"load-{client}-{number}"


def request(client: int, number: int) -> pb.CreateTrainingJobRequest:
    """What a client asks for by a number: each job differs in name, label, seed and rate."""
    identity = job_id(client, number)
    spec = DIGITS.model_copy(update={"seed": 10_000 * client + number})
    submission = Submission(
        spec=spec, display_name=f"job {number} of {client}", labels={"client": str(client)}
    )
    job = wire.to_message(submission, training_job_pb2.TrainingJob, only_set=True)
    return pb.CreateTrainingJobRequest(
        training_job=job, training_job_id=identity, request_id=identity
    )


def wrong(job: training_job_pb2.TrainingJob, client: int, number: int, state: int = _QUEUED) -> str:
    """What is wrong with an answer about such a job; empty: nothing."""
    expected = request(client, number).training_job
    said = (job.name, job.display_name, dict(job.labels), job.spec.seed, job.state)
    should = (
        f"trainingJobs/{job_id(client, number)}",
        expected.display_name,
        dict(expected.labels),
        expected.spec.seed,
        state,
    )
    return "" if said == should else f"{said} instead of {should}"
