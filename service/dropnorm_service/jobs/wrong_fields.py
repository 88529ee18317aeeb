"""What is wrong with a request, told at once and not piece by piece."""

from __future__ import annotations

from types import TracebackType

from dropnorm.spec import InvalidSpecError
from dropnorm_service.jobs.errors import InvalidRequest


class WrongFields:
    """Wrong fields of several parts of a request, told in one error.

    Each part is read in a `with` block of its own, which ends at what is wrong and keeps it for `settle`:

        wrong = WrongFields()
        with wrong:
            name = read_name(request)
        with wrong:
            size = read_size(request)
        wrong.settle()
    """

    def __init__(self) -> None:
        self._errors: list[InvalidRequest] = []

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if isinstance(error, InvalidSpecError):
            error = InvalidRequest(error.problems)
        if isinstance(error, InvalidRequest):
            self._errors.append(error)
            return True
        return False

    def __bool__(self) -> bool:
        return bool(self._errors)

    def settle(self) -> None:
        """Go on if nothing was wrong.

        Raises:
            InvalidRequest: with the problems of every part, and of the class that they have in common.
        """
        if len(self._errors) == 1:
            raise self._errors[0]
        if self._errors:
            kinds = {type(error) for error in self._errors}
            kind = kinds.pop() if len(kinds) == 1 else InvalidRequest
            raise kind([problem for error in self._errors for problem in error.problems])
