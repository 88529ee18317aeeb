"""Imported for what it imports: all that a first training would load on its way.

For a process from which workers are forked. It starts no thread and touches no GPU.
"""

import torch._dynamo  # noqa: F401  the first optimizer of a process imports it: a second

import dropnorm_service.training  # noqa: F401
