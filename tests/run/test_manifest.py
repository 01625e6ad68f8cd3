"""A run is continued only as what it is."""

import pytest

from gsfl_tune.experiment import Experiment, UserError
from gsfl_tune.run import RunDirectory
from gsfl_tune.run.manifest import Manifest
from gsfl_tune.run.results import Outcome, Results, Score, write_results


def experiment(trials=3):
    return Experiment.parse(f"name: t\ndata: {{source: typefaces}}\nsearch: {{trials: {trials}}}\n")


@pytest.fixture
def manifest(tmp_path):
    made = Manifest(RunDirectory(tmp_path / "run"))
    made.begin(experiment(), data="aaaa", environment={}, seconds=1.0)
    return made


def test_a_run_is_not_begun_over_another(manifest):
    manifest.check(resume=True)
    with pytest.raises(UserError, match="--resume"):
        manifest.check(resume=False)


def test_there_must_be_something_to_resume(tmp_path):
    fresh = Manifest(RunDirectory(tmp_path / "none"))
    fresh.check(resume=False)
    with pytest.raises(UserError, match="no run to resume"):
        fresh.check(resume=True)


def test_other_images_are_refused(manifest):
    manifest.refuse_other_data("aaaa")
    with pytest.raises(UserError, match="images or their split"):
        manifest.refuse_other_data("bbbb")


def test_results_of_a_smaller_budget_are_not_those_of_a_larger_one(manifest):
    score = {"accuracy": Score.of([0.5])}
    outcome = Outcome(config={}, validation=score, test=score, seeds=[1])
    write_results(manifest.run.results_file, Results("t", "validation/accuracy", {}, outcome))
    assert manifest.finished(experiment())
    assert not manifest.finished(experiment(trials=9))
    manifest.begin(experiment(trials=9), data="aaaa", environment={}, seconds=1.0)
    # Interrupted here: the old results must not pass for those of the nine trials.
    assert not manifest.finished(experiment(trials=9))


def test_seconds_add_up_over_drivers(manifest):
    with manifest.clock("search"):
        pass
    manifest.begin(experiment(), data="aaaa", environment={}, seconds=2.0)
    seconds = manifest.seconds()
    assert seconds["preflight"] == 3.0
    assert seconds["total"] == pytest.approx(seconds["preflight"] + seconds["search"])
