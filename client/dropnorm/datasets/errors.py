"""What is wrong with data before anything is sent."""

from __future__ import annotations


class InvalidData(ValueError):
    """Data that cannot become a data set; the message names the row, the column or the byte, and says what to do."""


class InvalidRow(InvalidData):
    """A row is wrong: whoever knows which line of a file it was can say that instead.

    Args:
        before: what the sentence says before the row.
        row: its number, from 0.
        after: what it says behind it.
    """

    def __init__(self, before: str, row: int, after: str) -> None:
        super().__init__(f"{before}row {row}{after}")
        self.row = row
        self._before, self._after = before, after

    def at(self, place: str) -> str:
        """The sentence with another place than the row."""
        return f"{self._before}{place}{self._after}"


def needs(library: str, what: str) -> ImportError:
    """The error of a missing library, with the command that installs it."""
    return ImportError(f"{what} needs {library}: pip install 'dropnorm[data]'")
