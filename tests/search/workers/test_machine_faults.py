"""Whether the machine failed a trial, or its configuration did."""

from __future__ import annotations

import errno
import os

import pytest

from gsfl_tune.experiment.errors import EnvironmentProblem, UserError
from gsfl_tune.models import WeightsUnavailable
from gsfl_tune.search.workers.machine_faults import environment_problem


def _wrapped(cause: BaseException, *errors: Exception) -> Exception:
    """The last of the errors, each raised because of the one before."""
    for error in errors:
        try:
            raise error from cause
        except Exception as raised:
            cause = raised
    assert isinstance(cause, Exception)
    return cause


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        ConnectionError("no route to host"),
        WeightsUnavailable("resnet18: no network"),
    ],
    ids=["disk", "network", "weights"],
)
def test_what_the_machine_lacks_is_no_outcome_of_the_configuration(error: Exception) -> None:
    found = environment_problem(error)
    assert isinstance(found, EnvironmentProblem)
    assert str(found) == str(error)


@pytest.mark.parametrize(
    "error", [UserError("model.groups: found 500"), ValueError("x"), RuntimeError("shape")]
)
def test_what_the_configuration_does_is(error: Exception) -> None:
    assert environment_problem(error) is None
    assert environment_problem(_wrapped(KeyError("groups"), error)) is None


def test_a_message_for_the_user_keeps_its_words_and_its_cause_decides() -> None:
    disk = OSError(errno.ENOSPC, "No space left on device")
    error = _wrapped(disk, RuntimeError("writing features"), UserError("the cache cannot be used"))
    found = environment_problem(error)
    assert found is not None
    assert str(found) == "the cache cannot be used"


def test_a_problem_that_is_known_as_one_is_passed_on() -> None:
    known = EnvironmentProblem("the storage does not answer")
    assert environment_problem(known) is known
    assert str(environment_problem(_wrapped(known, ValueError("trial 3")))) == "trial 3"


def test_an_error_in_the_handling_of_another_is_judged_by_itself() -> None:
    """That a file is not there is often the regular case, and what follows a mistake of its own."""
    error = ValueError("model.groups: found 500")
    error.__context__ = FileNotFoundError("checkpoint.pt")
    assert environment_problem(error) is None
