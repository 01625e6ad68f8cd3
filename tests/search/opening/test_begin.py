"""What a driver makes of a run directory that it finds."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.run import EpochLog, RunDirectory, write_json, write_text
from gsfl_tune.run.manifest import Manifest
from gsfl_tune.search import begin_or_go_on, clear, open_study, refuse_changes, untried
from gsfl_tune.search.opening.begin import Beginning
from gsfl_tune.search.study.journal import open_journal, read_studies
from tests.search.experiments import YAML, experiment

OTHER = "model.dropout=0.1"


@pytest.fixture
def begun(run: RunDirectory) -> RunDirectory:
    """A run whose driver ended before a trial did anything."""
    study = open_study(experiment(), run)
    study.enqueue({"model.head": "plain", "model.latent_dim": 8}, "defaults")
    study.close()
    Manifest(run).begin(experiment(), data="aaaa", environment={}, seconds=1.0)
    write_json(run.tracking_file, {"id": "of the first space"})
    write_text(run.tensorboard / "events.out.tfevents.1.host", "its columns")
    return run


def go_on(run: RunDirectory, made: Experiment, data: str = "aaaa", resume: bool | None = None):
    return begin_or_go_on(made, run, data, resume=resume)


def test_a_run_without_trials_is_taken_over_by_whatever_comes(begun: RunDirectory) -> None:
    assert untried(begun)
    assert go_on(begun, experiment(), resume=False).anew
    for resume in (True, None):
        assert not go_on(begun, experiment(), resume=resume).anew
        assert go_on(begun, experiment(OTHER), resume=resume).anew
        assert go_on(begun, experiment(), data="bbbb", resume=resume).anew
    said: list[str] = []
    clear(begun, said.append)
    (line,) = said
    assert "has no trained epoch; it is begun anew" in line
    assert not begun.manifest_file.exists()
    assert not begun.tracking_file.exists()
    assert not begun.tensorboard.exists()
    # What was published of the journal stays: it is only added to.
    assert read_studies(begun.journal) == {}
    study = open_study(experiment(OTHER, "search.metric=validation/accuracy"), begun)
    assert study.ask().number == 0
    assert study.direction == "maximize"
    study.close()
    (found,) = read_studies(begun.journal)["search"]
    assert found.state.name == "RUNNING"


@pytest.mark.parametrize("what", ["epoch", "rung", "failed"])
def test_a_run_with_a_trial_is_not(begun: RunDirectory, what: str) -> None:
    study = open_study(experiment(), begun)
    assert study.ask().number == 0
    assert untried(begun)
    if what == "epoch":
        folder = begun.trial("search", 0)
        folder.mkdir(parents=True)
        EpochLog(folder / "epochs.jsonl").append({"epoch": 1})
    elif what == "rung":
        study.report(0, 0, 0.5)
    else:
        study.fail(0, "it broke")
    study.close()
    assert not untried(begun)
    with pytest.raises(UserError, match=r"model\.dropout: was"):
        go_on(begun, experiment(OTHER))
    with pytest.raises(UserError, match="images or their split"):
        go_on(begun, experiment(), data="bbbb")


def test_teachers_are_known_once_a_trial_has_learned_from_them(begun: RunDirectory) -> None:
    taught = experiment("training.teacher=runs/large/best", "loss.distill.weight=1")
    for made in (Beginning(taught, None), Beginning(experiment(), None, before=taught)):
        assert made.teachers(begun) == []
    study = open_study(experiment(), begun)
    study.ask()
    study.report(0, 0, 0.5)
    study.close()
    for made in (Beginning(taught, None), Beginning(experiment(), None, before=taught)):
        assert made.teachers(begun) == [Path("runs/large/best").absolute()]
    # One that a changed space brings is new.
    assert Beginning(taught, None, before=experiment()).teachers(begun) == []
    assert Beginning(taught, None, anew=True).teachers(begun) == []


def test_what_cannot_be_read_is_not_taken_for_nothing(begun: RunDirectory) -> None:
    begun.journal.write_text("{}\n")
    assert not untried(begun)
    begun.journal.unlink()
    assert untried(begun)
    begun.results_file.write_text("{}")
    assert not untried(begun)
    begun.results_file.unlink()
    begun.manifest_file.write_text('{"format": 99}')
    assert not untried(begun)


def test_where_images_lie_is_no_part_of_what_a_study_is(run: RunDirectory, tmp_path: Path) -> None:
    places = [tmp_path / "old", tmp_path / "new"]
    for place in places:
        place.mkdir()
    text = YAML.replace("source: typefaces", "source: folder\n  path: PLACE")
    old, new = (experiment(text=text.replace("PLACE", str(place))) for place in places)
    open_study(old, run).close()
    # As an earlier version has written it down.
    storage, _ = open_journal(run.journal)
    study = optuna.load_study(study_name="search", storage=storage)
    known = study.user_attrs["fingerprint"]
    study.set_user_attr("fingerprint", {**known, "data.path": str(places[0])})
    refuse_changes(run, new)
    open_study(new, run).close()
    with pytest.raises(UserError, match=r"data\.source: was folder, found typefaces"):
        refuse_changes(run, experiment())


def test_a_run_of_an_earlier_version_goes_on_without_the_keys_that_came_later(
    run: RunDirectory,
) -> None:
    open_study(experiment(), run).close()
    storage, _ = open_journal(run.journal)
    study = optuna.load_study(study_name="search", storage=storage)
    known = dict(study.user_attrs["fingerprint"])
    # An earlier version did not know them, and trained as their defaults do.
    for later in ("loss.class_weights", "data.crop", "training.balanced_sampling"):
        del known[later]
    study.set_user_attr("fingerprint", known)
    refuse_changes(run, experiment())
    open_study(experiment(), run).close()
    weighted = experiment(text=YAML + "loss: {class_weights: 0.5}\n")
    with pytest.raises(UserError, match=r"loss\.class_weights: was nothing, found 0\.5"):
        refuse_changes(run, weighted)
