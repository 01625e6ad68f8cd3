"""Tells failures of the machine from failures of a configuration."""

from __future__ import annotations

from gsfl_tune.experiment.errors import EnvironmentProblem
from gsfl_tune.models import WeightsUnavailable


def environment_problem(error: Exception) -> EnvironmentProblem | None:
    """What the machine did, or None when the configuration is to blame.

    A full disk would fail every trial that is left within seconds, and for good: nobody
    should write that down as an outcome of a configuration.

    Args:
        error: What a training raised. Its causes count too: messages for users wrap them.
    """
    if isinstance(error, EnvironmentProblem):
        return error
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError | WeightsUnavailable | EnvironmentProblem):
            return EnvironmentProblem(str(error))
        cause = cause.__cause__
    return None
