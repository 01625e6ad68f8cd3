"""Whatever a search does before its first trial, it says what it does."""

from __future__ import annotations

import pytest

from gsfl_tune import Experiment, UserError, pipeline, search
from gsfl_tune.activity import current

TEXT = """
name: tiny
data: {source: typefaces, image_size: 32, typefaces: {train: 4, test: 2}}
model: {backbone: test_byobnet, weights: none}
training: {head: {epochs: 1}}
search: {trials: 1}
"""
STEPS = ["open_workspace", "fit_groups", "fit_precision", "begin_or_go_on"]


def test_every_step_of_the_opening_has_words(tmp_path, monkeypatch):
    said = {}

    def noted(name):
        step = getattr(pipeline, name)

        def run(*arguments, **named):
            said[name] = current()
            return step(*arguments, **named)

        return run

    def refused(*_, **__):
        raise UserError("far enough")

    for name in STEPS:
        monkeypatch.setattr(pipeline, name, noted(name))
    monkeypatch.setattr(pipeline, "refuse_what_fails_later", refused)
    with pytest.raises(UserError, match="far enough"):
        search(Experiment.parse(TEXT), tmp_path / "run", cache_dir=tmp_path / "cache")
    assert {name: one.what for name, one in said.items()} == dict.fromkeys(
        STEPS, "preparing the search"
    )
    # A refusal leaves no words behind in a process that goes on.
    assert current() is None
