"""What a resume with another budget makes of the plan that is there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.run import RunDirectory, write_json, write_text
from gsfl_tune.run.manifest import Manifest
from gsfl_tune.search import begin_or_go_on, planned
from gsfl_tune.search.costs.time_plan import Asked, Prices, TimePlan, make_plan
from gsfl_tune.search.opening.kept_plan import as_asked

# The file of a user who leaves everything to the plan.
YAML = """
name: kept
data: {source: typefaces}
model: {backbone: test_efficientnet, weights: none}
search: {time_budget: 8m}
"""
PRICES = Prices(
    start=1.5, head_epoch=2.6, finetune_epoch=19, once=36, finetune_once=7, evidence=37,
    retrain=1.11, evidence_seed=4.5, view_once=19, views=4,
)  # fmt: skip
MANY = make_plan(3600, 29, 2, PRICES, Asked(None, None, None, None, "matched"))
ALONE = make_plan(480, 29, 2, PRICES, Asked(None, None, None, None, "matched"))


@pytest.fixture
def kept(run: RunDirectory) -> RunDirectory:
    run.path.mkdir()
    write_json(run.plan_file, ALONE.to_json())
    return run


def resumed(run: RunDirectory, *overrides: str) -> tuple[Experiment, TimePlan]:
    experiment, plan = planned(Experiment.parse(YAML, overrides=overrides), run)
    assert plan is not None
    return experiment, plan


def test_the_same_budget_is_the_same_plan(kept: RunDirectory) -> None:
    experiment, plan = resumed(kept)
    assert plan == ALONE
    assert plan.alone
    assert experiment.defaults().search.trials == 1
    assert "left for the first trial alone, 1 finalist, 1 seed" in plan.lines_of_resume(100)[1]


def test_more_time_is_for_more_trials_with_the_same_epochs(kept: RunDirectory) -> None:
    experiment, plan = resumed(kept, "search.time_budget=80m")
    assert plan == replace(ALONE, budget=4800, alone=False, trials=10 * ALONE.trials)
    config = experiment.defaults()
    assert config.search.trials > 10 * ALONE.trials
    assert config.training.head.epochs == ALONE.head_epochs
    assert config.training.finetune.epochs == ALONE.finetune_epochs
    lines = plan.lines_of_resume(elapsed=600)
    assert lines == [
        "plan for 80 min, resumed: 10 head + 4 finetune epochs, as planned before",
        "   70 min  left for trials, 1 finalist, 1 seed, test and export",
    ]
    assert all(len(line) <= 80 for line in lines)


def test_finalists_and_seeds_of_the_file_count_on_a_resume_too(kept: RunDirectory) -> None:
    overrides = ("search.time_budget=80m", "search.finalists=4", "search.final_seeds=3")
    experiment, plan = resumed(kept, *overrides)
    assert (plan.finalists, plan.final_seeds) == (4, 3)
    search = experiment.defaults().search
    assert (search.finalists, search.final_seeds) == (4, 3)


def test_less_time_keeps_what_was_planned(kept: RunDirectory) -> None:
    _, plan = resumed(kept, "search.time_budget=7m")
    assert plan == replace(ALONE, budget=420)
    assert "      0 s  left" in plan.lines_of_resume(500)[1]


def test_a_plan_that_cannot_be_read_is_named(kept: RunDirectory) -> None:
    kept.plan_file.write_text('{"budget": 1}')
    with pytest.raises(UserError, match=r"plan\.json: cannot be read"):
        resumed(kept)


def own_file(run: RunDirectory, *overrides: str) -> list[str]:
    """Resumes, as a driver does that writes the run's own file; returns its lines."""
    experiment, _ = planned(as_asked(Experiment.parse(YAML, overrides=overrides), run), run)
    write_text(run.experiment_file, experiment.to_yaml())
    return run.experiment_file.read_text().splitlines()


@pytest.mark.parametrize("version", ["this", "an earlier one"])
@pytest.mark.parametrize("before", [(), ("search.time_budget=80m",)])
@pytest.mark.parametrize(
    "now", [(), ("search.time_budget=100m",), ("search.finalists=4", "search.final_seeds=3")]
)
def test_the_runs_own_file_is_resumed_as_the_file_of_its_user(
    kept: RunDirectory, version: str, before: tuple[str, ...], now: tuple[str, ...]
) -> None:
    asked = sorted(Experiment.parse(YAML).automatic) if version == "this" else None
    write_json(kept.plan_file, replace(MANY, automatic=asked).to_json())
    Manifest(kept).begin(Experiment.parse(YAML), data="aaaa", environment={}, seconds=1.0)
    own_file(kept, *before)
    theirs = begin_or_go_on(
        Experiment.parse(YAML, overrides=[*before, *now]), kept, "aaaa", resume=True
    )
    file = Experiment.load(kept.experiment_file, now)
    ours = begin_or_go_on(file, kept, "aaaa", resume=True)
    assert ours.plan == theirs.plan
    assert ours.experiment.defaults() == theirs.experiment.defaults()
    # The time ends the search, and no number of trials.
    assert (ours.counted, theirs.counted) == (False, False)


def test_the_runs_own_file_is_that_of_its_user_where_images_have_moved(
    kept: RunDirectory, tmp_path: Path
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    asked = YAML.replace("source: typefaces", f"source: folder, path: {old}")
    first = Experiment.parse(asked)
    write_json(kept.plan_file, replace(MANY, automatic=sorted(first.automatic)).to_json())
    Manifest(kept).begin(first, data="aaaa", environment={}, seconds=1.0)
    write_text(kept.experiment_file, planned(as_asked(first, kept), kept)[0].to_yaml())
    old.rename(new)
    now = (f"data.path={new}", "search.time_budget=100m")
    theirs = begin_or_go_on(Experiment.parse(asked, overrides=now), kept, "aaaa", resume=True)
    file = Experiment.load(kept.experiment_file, now)
    ours = begin_or_go_on(file, kept, "aaaa", resume=True)
    assert ours.plan == theirs.plan
    assert ours.experiment.defaults() == theirs.experiment.defaults()
    assert not ours.counted


def test_numbers_of_the_user_are_none_of_the_plan(kept: RunDirectory) -> None:
    """Also where the plan has the same ones: it took them from the file."""
    given = ("search.trials=1", "search.finalists=2")
    asked = Experiment.parse(YAML, overrides=given)
    write_json(kept.plan_file, replace(ALONE, automatic=sorted(asked.automatic)).to_json())
    own_file(kept, *given)
    for file in (asked, Experiment.load(kept.experiment_file)):
        found = as_asked(file, kept)
        assert not {"search.trials", "search.finalists"} & found.automatic
        longer = Experiment.load(kept.experiment_file, ["search.time_budget=80m"])
        experiment, plan = planned(as_asked(longer, kept), kept)
        assert plan is not None
        assert experiment.defaults().search.trials == 1
        assert plan.finalists == 2
