"""A cache that is named by a relative path is that of all trials."""

from __future__ import annotations

import pytest

from tests import warm
from tests.commands import environment, make_home


@pytest.mark.slow
def test_trials_share_a_cache_that_is_named_by_a_relative_path(tmp_path_factory):
    """Ray runs every trial in a working directory of its own; each had its own cache there."""
    home = make_home(tmp_path_factory)
    relative = environment(home) | {"GSFL_TUNE_CACHE": "cache"}
    words = ("search", "tiny.yaml", "--set", "search.trials=2", "--set", "search.control=off")
    done = warm.run(words, cwd=home, env=relative)
    assert done.returncode == 0, done.stdout + done.stderr
    features = [file.stat().st_mtime for file in (home / "cache" / "features").glob("*.npy")]
    trials = (home / "runs" / "tiny" / "trials").glob("*/epochs.jsonl")
    assert min(features) <= min(file.stat().st_mtime for file in trials)
