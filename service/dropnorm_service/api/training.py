"""TrainingService at the edge: convert, call, convert. What is decided is decided in `jobs`."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf import empty_pb2

from dropnorm import results, wire
from dropnorm.spec import Problem, Submission, TrainingSpec
from dropnorm.v1 import plan_pb2, training_job_pb2, training_service_pb2, training_service_pb2_grpc
from dropnorm_service.api.replies import Replies
from dropnorm_service.jobs.errors import InvalidRequest
from dropnorm_service.jobs.ports import JobQuery
from dropnorm_service.jobs.service import JobService

Context = grpc.aio.ServicerContext[Any, Any]

_NAME = re.compile(r"trainingJobs/([a-z](?:[a-z0-9-]{0,61}[a-z0-9])?)")
