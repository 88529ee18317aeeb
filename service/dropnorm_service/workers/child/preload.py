"""Imports everything that the forked need; the fork server loads it once."""

# torch imports this when a process makes its first optimizer, which takes most of a second.
import torch._dynamo  # noqa: F401

import dropnorm_service.workers.child.inventory
import dropnorm_service.workers.child.planner
import dropnorm_service.workers.child.worker  # noqa: F401
