"""What is wrong with data before anything is sent."""

from __future__ import annotations


class InvalidData(ValueError):
    """Data that cannot become a data set; the message names the row, the column or the byte, and says what to do."""


def needs(library: str, what: str) -> ImportError:
    """The error of a missing library, with the command that installs it."""
    return ImportError(f"{what} needs {library}: pip install 'dropnorm[data]'")
