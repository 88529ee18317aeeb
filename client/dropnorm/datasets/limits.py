"""How much a data set may take here; the service has limits of its own."""

MAX_BYTES = 16 * 2**30
"""Bytes that the samples and targets of compressed files may unfold to."""
MAX_NAME = 200
"""Characters of a name: of a class, a feature, a token."""
