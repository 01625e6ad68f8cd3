"""A run directory has one driver, and who cannot be sure of that is told why."""

from __future__ import annotations

import errno
import fcntl
import os

import pytest

from gsfl_tune.experiment import UserError
from gsfl_tune.run import RunDirectory, run_lock


def test_a_second_driver_is_refused_with_the_process_of_the_first(tmp_path) -> None:
    run = RunDirectory(tmp_path / "run")
    busy = pytest.raises(UserError, match=rf"another search is using.*process {os.getpid()}")
    with run_lock(run), busy, run_lock(run):
        pass


def test_a_file_system_without_locks_is_not_taken_for_another_driver(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(handle: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    # As Lustre does that is mounted without `flock`.
    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        pytest.raises(UserError, match=r"has no locks.*not implemented.*storage") as refused,
        run_lock(RunDirectory(tmp_path / "run")),
    ):
        pass
    assert "another search" not in str(refused.value)
