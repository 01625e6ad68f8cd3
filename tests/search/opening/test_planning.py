"""What a time budget leaves out of a space."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gsfl_tune.cluster import Slots
from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.search import TrialCosts
from gsfl_tune.search.costs.time_plan import Asked, Prices, TimePlan, make_plan
from gsfl_tune.search.opening.kept_plan import fixed_to
from gsfl_tune.search.opening.planning import (
    Frozen,
    _fewer_preparations,
    _longest_plan,
    plan_time,
    prices_of,
)
from gsfl_tune.training import Workspace
from gsfl_tune.training.pricing import Measured

YAML = """
name: planned
data:
  source: typefaces
  image_size: 32
  views: 4
  augment: {scale: {choice: [0.35, 0.7]}, flip: false}
  typefaces: {train: 6, test: 2, size: 40}
model:
  backbone: {choice: [test_efficientnet, test_resnet]}
  weights: none
training:
  finetune:
    blocks: {choice: [2, 1]}
    learning_rate: {float: [1e-4, 1e-2], log: true, default: 3e-3}
search: {time_budget: 10m}
"""
TEMPLATE = Path(__file__).parents[3] / "search_spaces" / "image_folder.yaml"
PRICES = Prices(
    start=1, head_epoch=1, finetune_epoch=10, once=10, finetune_once=10, evidence=30, retrain=1.2
)
FREE = Asked(None, None, None, None, "matched")


@pytest.fixture(scope="module")
def experiment():
    return Experiment.parse(YAML)


def plan(epochs: int) -> TimePlan:
    made = make_plan(3600, 0, 2, PRICES, FREE)
    return replace(made, finetune_epochs=epochs)


def test_without_a_finetune_stage_nothing_of_it_is_searched(experiment):
    fixed = fixed_to(experiment, plan(0))
    assert fixed.values("training.finetune.epochs") == [0]
    assert not [path for path in fixed.space.alternatives if path.startswith("training.finetune.")]
    assert fixed.defaults().training.finetune.learning_rate == 3e-3
    assert fixed.values("data.augment.scale") == [0.35, 0.7]


def test_views_that_no_epoch_would_show_are_not_made(experiment):
    assert fixed_to(experiment, plan(2)).defaults().data.views == 2
    assert fixed_to(experiment, plan(8)).defaults().data.views == 4


def test_the_rate_of_a_template_follows_the_blocks_that_a_plan_leaves():
    template = Experiment.load(TEMPLATE, overrides=["data.path=/"])
    two = fixed_to(template, plan(8))
    one = fixed_to(template, replace(plan(4), only={"training.finetune.blocks": 1}))
    rates = [each.defaults().training.finetune.learning_rate for each in (two, one)]
    assert rates == [1.2e-3, 3e-3]
    assert "training.finetune.learning_rate@0" not in one.default_params()


def test_what_takes_too_long_to_prepare_is_left_out_the_dearest_first(experiment, tmp_path):
    experiment = experiment.provisional()
    workspace = Workspace.open(experiment.defaults().data, cache_dir=tmp_path)

    def left(rate: float) -> list[list[object]]:
        fewer = _fewer_preparations(experiment, workspace, Frozen(rate, rate, 0.0), 600)
        paths = ("model.backbone", "data.augment.scale", "training.finetune.blocks")
        return [fewer.values(path) for path in paths]

    whole = [["test_efficientnet", "test_resnet"], [0.35, 0.7], [2, 1]]
    assert left(100) == whole
    assert left(30) == [["test_efficientnet"], *whole[1:]]
    assert left(1) == [["test_efficientnet"], [0.35], [2]]


def test_fewer_blocks_are_trained_where_more_leave_no_time(experiment):
    def epochs(two: int, one: int) -> tuple[int, list[object]]:
        def plan_of(narrowed: Experiment) -> TimePlan:
            blocks = narrowed.values("training.finetune.blocks")
            return replace(plan(one if blocks == [1] else two), only={"blocks": blocks})

        found = _longest_plan(experiment, plan_of)
        return found.finetune_epochs, found.only["blocks"]

    assert epochs(two=8, one=12) == (8, [2, 1])
    assert epochs(two=2, one=6) == (6, [1])
    assert epochs(two=0, one=0) == (0, [2, 1])


def planned(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, slow: float = 0.0
) -> TimePlan:
    """Plans as a search does; the steps are not timed, which takes `slow` seconds."""
    now = [10.0]

    def measured(*_: object) -> Frozen:
        now[0] += slow
        return Frozen(1000.0, 1000.0, 0.0)

    monkeypatch.setattr("gsfl_tune.search.opening.planning._measure", measured)
    workspace = Workspace.open(experiment.provisional().defaults().data, cache_dir=tmp_path)
    costs = TrialCosts.of(workspace.dataset)
    plan = plan_time(experiment, workspace, Slots(1, 0, 2), costs, spent=lambda: now[0])
    assert plan is not None
    return plan


def test_what_planning_takes_is_spent(experiment, tmp_path, monkeypatch):
    assert planned(experiment, tmp_path, monkeypatch, slow=40.0).spent == 50.0
    with pytest.raises(UserError, match=r"at least 11 min: 9:30 min before the first trial"):
        planned(experiment, tmp_path, monkeypatch, slow=560.0)


@pytest.mark.parametrize("control", ["matched", "tuned"])
def test_no_control_is_planned_where_no_head_has_groups(tmp_path, monkeypatch, control):
    overrides = [f"search.control={control}"]
    with_one, without = (
        planned(
            Experiment.parse(YAML, overrides=[*overrides, f"model.head={head}"]),
            tmp_path,
            monkeypatch,
        )
        for head in ("gsfl", "plain")
    )
    assert (with_one.control, without.control) == (control, "off")
    assert any("winner and control retrained" in line for line in with_one.lines())
    assert any("winner retrained" in line for line in without.lines())


def test_the_epochs_of_a_further_stage_are_part_of_each_training(tmp_path, monkeypatch):
    experiment = Experiment.parse(YAML).provisional()
    workspace = Workspace.open(experiment.defaults().data, cache_dir=tmp_path)
    costs = TrialCosts.of(workspace.dataset)
    head, finetune = costs.work(experiment.defaults())
    polish = replace(finetune, stage="polish", epochs=5)
    frozen = Frozen(1000.0, 1000.0, 0.0)
    before = prices_of(experiment, workspace, costs, frozen, 2)
    monkeypatch.setattr(costs, "work", lambda config, fit="train": [head, finetune, polish])
    after = prices_of(experiment, workspace, costs, frozen, 2)
    polished = 5 * costs.costs.epoch(polish) + costs.costs.once(polish)
    assert after.start == pytest.approx(before.start + polished)
    assert after.training(3, 2) == pytest.approx(before.training(3, 2) + polished)


def test_the_finals_of_a_plan_end_with_the_slowest_machine(experiment, tmp_path):
    experiment = experiment.provisional()
    workspace = Workspace.open(experiment.defaults().data, cache_dir=tmp_path)
    costs = TrialCosts.of(workspace.dataset)
    for work in costs.work(experiment.defaults()):
        for machine, factor in (("fast", 1), ("slow", 5)):
            costs.costs.observe(Measured(work, 1, factor, machine))
    prices = prices_of(experiment, workspace, costs, Frozen(1000.0, 1000.0, 0.0), 2)
    assert prices.slower == pytest.approx(5 / 3, rel=0.1)
    asked = Asked(10, 8, 3, 3, "matched")
    even = make_plan(7200, 0, 2, PRICES, asked)
    uneven = make_plan(7200, 0, 2, replace(PRICES, slower=1.5), asked)
    assert uneven.training == even.training
    assert uneven.finals == pytest.approx(1.5 * even.finals)


def test_where_no_plan_fits_the_message_is_that_of_the_whole_space(experiment):
    def refused(narrowed: Experiment) -> TimePlan:
        raise UserError(str(narrowed.values("training.finetune.blocks")))

    with pytest.raises(UserError, match=r"\[2, 1\]"):
        _longest_plan(experiment, refused)
