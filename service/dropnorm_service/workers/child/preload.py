"""Imports everything that the forked need; the fork server loads it once."""

import dropnorm_service.training.preload
import dropnorm_service.workers.child.exporter
import dropnorm_service.workers.child.inventory
import dropnorm_service.workers.child.planner
import dropnorm_service.workers.child.predictor
import dropnorm_service.workers.child.worker  # noqa: F401
