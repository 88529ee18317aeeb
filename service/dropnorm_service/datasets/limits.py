"""What uploaded data sets may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of uploaded data sets.

    Attributes:
        bytes: size of one file.
        total_bytes: size of all files together, unfinished ones too, and of what is noted of them.
        user_bytes: likewise, of one user's; None: only all together are limited.
        user_uploads: files that one user uploads at once.
        datasets: data sets of all users together, with uploads that are not finished.
        user_datasets: likewise, of one user.
        samples: samples of one data set.
        values: values of one sample.
    """

    bytes: int = 4 * 2**30
    total_bytes: int = 64 * 2**30
    user_bytes: int | None = None
    user_uploads: int = 16
    datasets: int = 10_000
    user_datasets: int = 1_000
    samples: int = 10**8
    values: int = 2**24
