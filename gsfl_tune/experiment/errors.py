"""What goes wrong with what a user wrote, in words that say where and what is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class UserError(Exception):
    """Something the user can mend; the command line prints it and exits with code 2."""


class EnvironmentProblem(UserError):
    """The machine failed, not the configuration: disk, network, or a file that is gone.

    Once it is mended, the same work can go on.
    """


@dataclass(frozen=True, order=True)
class Problem:
    """One complaint about one place.

    Attributes:
        file: File name as the user gave it, or ``--set``.
        line: Line, counted from 1; 0 where there is none.
        path: Dotted path of the leaf, empty where there is none.
        message: What was found and what is allowed.
    """

    file: str
    line: int
    path: str
    message: str

    def __str__(self) -> str:
        if self.file == "--set":
            return f"--set {self.path}: {self.message}" if self.path else f"--set: {self.message}"
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.path}: {self.message}" if self.path else f"{place}: {self.message}"


class ExperimentError(UserError):
    """Every problem of an experiment at once; its text has one line per problem."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[type[ExperimentError], tuple[list[Problem]]]:
        return type(self), (self.problems,)


def first_line(error: BaseException) -> str:
    """Returns the first line of what an error says, or its kind where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
