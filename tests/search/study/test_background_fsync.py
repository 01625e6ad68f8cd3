from __future__ import annotations

from pathlib import Path

import pytest

from gsfl_tune.run import RunDirectory
from gsfl_tune.search.study.background_fsync import Syncer
from gsfl_tune.search.study.journal import read_studies
from tests import warm


def test_what_does_not_reach_the_disk_is_told(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.touch()
    syncer = Syncer(path)
    syncer.begin()
    syncer.wait()
    path.unlink()
    syncer.begin()
    with pytest.raises(FileNotFoundError):
        syncer.wait()
    # From now on nobody may rely on the file.
    with pytest.raises(FileNotFoundError):
        syncer.begin()


def test_a_driver_that_is_killed_at_once_has_written_what_it_was_told(run: RunDirectory) -> None:
    code = (
        "import os, signal, sys\n"
        "from gsfl_tune.run import RunDirectory\n"
        "from gsfl_tune.search import open_study\n"
        "from tests.search.experiments import experiment\n"
        "study = open_study(experiment(), RunDirectory(sys.argv[1]))\n"
        "study.ask(); study.ask(); study.report(1, 0, 2.5); study.complete(0, 1.5)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert warm.run([run.path], code=code).returncode < 0
    first, second = read_studies(run.journal)["search"]
    assert (first.state.name, first.value) == ("COMPLETE", 1.5)
    assert (second.state.name, second.intermediate_values) == ("RUNNING", {0: 2.5})
