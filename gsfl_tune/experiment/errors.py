"""Errors in user input, with the place and the allowed values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

# Escape sequences that colour text in a terminal; torch has them in messages.
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class UserError(Exception):
    """Raised for errors that the user can fix; the command line prints it and exits with code 2."""


class EnvironmentProblem(UserError):
    """Raised when the machine failed, not the configuration: disk, network, or a missing file.

    Once it is fixed, the same work can continue.
    """


@dataclass(frozen=True, order=True)
class Problem:
    """Describes one complaint about one place.

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
    """Raised with all problems of an experiment; its text has one line per problem."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[type[ExperimentError], tuple[list[Problem]]]:
        return type(self), (self.problems,)


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message without colours, or its class if it is empty."""
    lines = _COLOURS.sub("", str(error)).strip().splitlines()
    return lines[0] if lines else type(error).__name__
