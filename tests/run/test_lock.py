"""A run directory has one driver, and who cannot be sure of that is told why."""

from __future__ import annotations

import errno
import fcntl
import os

import pytest

from gsfl_tune.experiment import UserError
from gsfl_tune.run import RunDirectory, run_lock

_NO_LOCK = r"cannot be written \(.*\), allowed is a run directory in which .* write the file \.lock"


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


@pytest.mark.parametrize("what", ["a folder", "a file above", "a file", "no right"])
def test_a_lock_that_cannot_be_made_is_one_message(
    tmp_path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDirectory(tmp_path / "above" / "run")
    if what == "a folder":
        run.lock_file.mkdir(parents=True)
    elif what == "a file above":
        (tmp_path / "above").touch()
    elif what == "a file":
        (tmp_path / "above").mkdir()
        run.path.touch()
    else:
        run.path.mkdir(parents=True)

        # A disk that is mounted read-only; nobody is refused by rights who is root.
        def refuse(path: str, flags: int, mode: int = 0o777) -> int:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

        monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UserError, match=_NO_LOCK) as said, run_lock(run):
        pass
    assert "\n" not in str(said.value)


def test_a_full_disk_is_no_fault_of_the_command(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, flags: int, mode: int = 0o777) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    (tmp_path / "run").mkdir()
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OSError, match="No space left"), run_lock(RunDirectory(tmp_path / "run")):
        pass
