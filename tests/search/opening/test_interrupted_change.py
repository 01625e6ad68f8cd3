"""What becomes of a change of the space whose driver was killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.run import RunDirectory, write_json, write_text
from gsfl_tune.run.manifest import Manifest
from gsfl_tune.search import begin_or_go_on, open_study, refuse_changes
from gsfl_tune.search.opening.change_space import change_space
from gsfl_tune.search.study.journal import read_studies
from tests.search.experiments import YAML, experiment
from tests.search.opening.test_begin import OTHER, go_on


def six_trials(run: RunDirectory, text: str = YAML) -> None:
    study = open_study(experiment(text=text), run)
    for number in range(6):
        study.ask()
        study.report(number, 0, 1.0 + 0.1 * number)
        study.complete(number, 0.1 * (number + 1), 2)
    study.close()


def kill_a_change(run: RunDirectory, text: str = YAML) -> None:
    old, new = experiment(text=text), experiment(OTHER, text=text)
    write_text(run.experiment_file, old.to_yaml())
    six_trials(run, text)
    Manifest(run).begin(old, data="aaaa", environment={}, seconds=1.0)
    write_json(run.results_file, {"winner": "of the old space"})
    going = begin_or_go_on(new, run, "aaaa", resume=True, changing=True)
    assert going.before == old
    change_space(run, going.before, new, lambda text: None)


@pytest.fixture
def killed(run: RunDirectory) -> RunDirectory:
    """A finished run whose space was changed by a driver that was killed right after that."""
    kill_a_change(run)
    return run


def looks(run: RunDirectory) -> list:
    trials = read_studies(run.journal)["search"]
    return [(t.number, t.state, t.params, t.values, t.intermediate_values) for t in trials]


def test_a_killed_change_goes_on_in_the_new_space(killed: RunDirectory) -> None:
    going = go_on(killed, experiment(OTHER), resume=True)
    assert going.before is None
    # The results are those of the old space.
    assert not going.same_space
    said: list[str] = []
    going.prepare(killed, experiment(OTHER), said.append)
    assert said == []
    write_text(killed.experiment_file, experiment(OTHER).to_yaml())
    Manifest(killed).begin(experiment(OTHER), data="aaaa", environment={}, seconds=1.0)
    assert Manifest(killed).run.manifest_file.read_text().count("space_changed") == 1
    assert go_on(killed, experiment(OTHER), resume=True).same_space


@pytest.mark.parametrize("changing", [False, True])
def test_a_killed_change_is_taken_back(
    killed: RunDirectory, tmp_path: Path, changing: bool
) -> None:
    """The run's own file is still that of the old space, so a plain resume is one of that."""
    whole = RunDirectory(tmp_path / "whole")
    six_trials(whole)
    assert looks(killed) != looks(whole)
    going = begin_or_go_on(experiment(), killed, "aaaa", resume=True, changing=changing)
    assert not going.same_space
    going.prepare(killed, experiment(), lambda text: None)
    assert looks(killed) == looks(whole)
    refuse_changes(killed, experiment())
    Manifest(killed).begin(experiment(), data="aaaa", environment={}, seconds=1.0)
    assert go_on(killed, experiment(), resume=True).same_space


def test_after_a_killed_change_another_one_is_asked_for_as_ever(killed: RunDirectory) -> None:
    third = experiment("model.dropout=0.3")
    with pytest.raises(UserError, match="--change-space"):
        go_on(killed, third, resume=True)
    going = begin_or_go_on(third, killed, "aaaa", resume=True, changing=True)
    going.prepare(killed, third, lambda text: None)
    refuse_changes(killed, third)
    assert [trial.number for trial in read_studies(killed.journal)["search"]] == list(range(6))


@pytest.mark.parametrize("then", ["goes on", "is taken back", "is changed again"])
def test_a_killed_change_of_images_that_have_moved_since(
    run: RunDirectory, tmp_path: Path, then: str
) -> None:
    text = YAML.replace("source: typefaces", "source: folder\n  path: PLACE")
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    kill_a_change(run, text.replace("PLACE", str(old)))
    old.rename(new)
    overrides = {
        "goes on": [OTHER],
        "is taken back": [],
        "is changed again": ["model.dropout=0.3"],
    }[then]
    wanted = experiment(*overrides, text=text.replace("PLACE", str(new)))
    going = begin_or_go_on(wanted, run, "aaaa", resume=True, changing=then == "is changed again")
    assert not going.same_space
    going.prepare(run, wanted, lambda text: None)
    refuse_changes(run, wanted)
    assert [trial.number for trial in read_studies(run.journal)["search"]] == list(range(6))
