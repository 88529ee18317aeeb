"""What the command's exit status means, and how errors become one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

from rich.markup import escape

from dropnorm import errors
from dropnorm.cli.render import stderr
from dropnorm.datasets import InvalidData
from dropnorm.results import State
from dropnorm.spec import InvalidSpecError, Problem


class Exit(IntEnum):
    """Exit status."""

    OK = 0
    JOB_FAILED = 1
    INVALID = 2
    NOT_FOUND = 3
    UNREACHABLE = 4
    JOB_CANCELLED = 5
    CONFLICT = 6
    SERVICE_ERROR = 7
    NOT_ALLOWED = 8
    INTERRUPTED = 130


EXIT_HELP = (
    "Exit status: 0 done · 1 the job failed · 2 wrong usage or invalid spec · 3 no such job · 4 the service cannot be "
    "reached · 5 the job was cancelled · 6 the job's state does not allow it, or its id is taken · 7 the service's own "
    "error · 8 no valid token, a role that does not allow it, or a path that the service may not import · "
    "130 interrupted"
)

_BY_ERROR: dict[type[Exception], Exit] = {
    errors.JobFailed: Exit.JOB_FAILED,
    errors.JobCancelled: Exit.JOB_CANCELLED,
    errors.InvalidRequest: Exit.INVALID,
    errors.PermissionDenied: Exit.NOT_ALLOWED,
    errors.Unauthenticated: Exit.NOT_ALLOWED,
    errors.NotFound: Exit.NOT_FOUND,
    errors.Unavailable: Exit.UNREACHABLE,
    errors.DeadlineExceeded: Exit.UNREACHABLE,
    errors.StartFailed: Exit.UNREACHABLE,
    errors.AlreadyExists: Exit.CONFLICT,
    errors.WrongState: Exit.CONFLICT,
}


@contextmanager
def errors_to_status() -> Iterator[None]:
    """Print an error for people, and end the process with the status that scripts read."""
    try:
        yield
    except (InvalidSpecError, errors.InvalidRequest) as error:
        _print_problems(error, error.problems)
        sys.exit(Exit.INVALID)
    except (InvalidData, ImportError) as error:
        stderr.print(f"[bold red]{escape(str(error))}", soft_wrap=True)
        sys.exit(Exit.INVALID)
    except errors.DropnormError as error:
        stderr.print(f"[bold red]{escape(str(error))}", soft_wrap=True)
        if error.request_id and not isinstance(error, errors.NotFound | errors.WrongState):
            stderr.print(f"[dim]request id {escape(error.request_id)}")
        sys.exit(status_of(error))
    except OSError as error:
        if error.filename is None:  # not about a file that was named
            raise
        name = escape(str(error.filename))
        if isinstance(error, FileNotFoundError):
            text = f"There is no file or folder {name}."
        else:
            text = f"{name} cannot be used: {escape(error.strerror or str(error))}."
        stderr.print(f"[bold red]{text}", soft_wrap=True)
        sys.exit(Exit.INVALID)


def status_of(error: errors.DropnormError) -> Exit:
    """The exit status of an error."""
    return next(
        (status for kind, status in _BY_ERROR.items() if isinstance(error, kind)),
        Exit.SERVICE_ERROR,
    )


def status_of_state(state: State) -> Exit:
    """The exit status after following a job to its end."""
    ends = {State.FAILED: Exit.JOB_FAILED, State.CANCELLED: Exit.JOB_CANCELLED}
    return ends.get(state, Exit.OK)


def _print_problems(error: Exception, problems: tuple[Problem, ...]) -> None:
    if not problems:
        stderr.print(f"[bold red]{escape(str(error))}", soft_wrap=True)
        return
    things = "one thing is" if len(problems) == 1 else f"{len(problems)} things are"
    stderr.print(f"[bold red]The request is not valid; {things} wrong:")
    for field, text in problems:
        where = f"[bold]{escape(field)}[/]: " if field else ""
        stderr.print(f"  [red]•[/] {where}{escape(text)}", soft_wrap=True)
