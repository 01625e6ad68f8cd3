"""The distinction between failures of the machine and failures of a configuration."""

from __future__ import annotations

from gsfl_tune.experiment.errors import EnvironmentProblem
from gsfl_tune.models import WeightsUnavailable


def environment_problem(error: Exception) -> EnvironmentProblem | None:
    """Returns the fault of the machine, or None when the configuration is at fault.

    A full disk would fail every remaining trial within seconds, and for good. This must not be
    recorded as an outcome of configurations.

    Args:
        error: Error of a training. Its causes count too: messages for users wrap them.
    """
    if isinstance(error, EnvironmentProblem):
        return error
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError | WeightsUnavailable | EnvironmentProblem):
            return EnvironmentProblem(str(error))
        cause = cause.__cause__
    return None
