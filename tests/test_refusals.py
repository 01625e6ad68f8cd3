"""What cannot work is refused by the whole command, and leaves no run."""

from __future__ import annotations

import pytest

from .commands import gsfl_tune, make_home


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return make_home(tmp_path_factory)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("model.groups.count=30", "found 30, allowed at most 21"),
        pytest.param("search.resources.gpu=1.5", "search.resources.gpu", marks=pytest.mark.slow),
        # What it says is tested in cluster/session/test_slots.py too.
        pytest.param("search.resources.cpu=4000", "4000 CPU cores", marks=pytest.mark.slow),
        ("search.folds=40", "search.folds: found 40, allowed at most "),
    ],
)
def test_what_cannot_work_is_refused_and_leaves_no_run(home, change, complaint):
    done = gsfl_tune(home, "search", "tiny.yaml", "--run-dir", "refused", "--set", change)
    assert done.returncode == 2, done.stdout + done.stderr
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    assert not (home / "refused" / "run.json").exists()


def test_nothing_to_resume_is_bad_input(home):
    done = gsfl_tune(home, "search", "tiny.yaml", "--resume", "--run-dir", "nowhere")
    assert done.returncode == 2
    assert "no run to resume" in done.stderr
