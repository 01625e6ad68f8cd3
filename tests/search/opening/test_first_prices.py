"""Prices before the first trial are those of steps that were timed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gsfl_tune.cluster import Slots
from gsfl_tune.experiment import Experiment
from gsfl_tune.search import TrialCosts, rehearse_and_price
from gsfl_tune.training import Workspace
from gsfl_tune.training.pricing import Measured
from tests.search.experiments import experiment

SLOTS = Slots(cpu=1, gpu=0, count=2)


def _priced(
    tried: Experiment, cache_dir: Path, costs: TrialCosts | None = None
) -> tuple[list[Measured], TrialCosts]:
    workspace = Workspace.open(tried.defaults().data, cache_dir=cache_dir)
    costs = costs or TrialCosts.of(workspace.dataset)
    found = rehearse_and_price(tried, workspace, SLOTS, costs, cache_dir=cache_dir)
    return found, costs


def test_steps_of_a_head_are_timed_and_price_its_epochs(cache_dir: Path) -> None:
    threads = torch.get_num_threads()
    (head,), costs = _priced(experiment(), cache_dir)
    assert torch.get_num_threads() == threads
    config = experiment().defaults()
    (work,) = costs.work(config)
    assert (head.work.stage, head.work.kind) == (work.stage, work.kind)
    # An epoch is priced by the speed of the steps, as far as its operations are like theirs.
    guessed = costs.unmeasured()
    factor = head.seconds / (guessed.costs.epoch(head.work) * head.epochs)
    assert costs.costs.epoch(work) == pytest.approx(factor * guessed.costs.epoch(work))


def test_a_resumed_search_knows_better(cache_dir: Path) -> None:
    costs = _priced(experiment(), cache_dir)[1].unmeasured()
    config = experiment().defaults()
    costs.recall(config, {"head": (3, 90.0)})
    known = costs.seconds(config)
    found, _ = _priced(experiment(), cache_dir, costs)
    assert not found
    assert costs.seconds(config) == known


def test_what_a_plan_will_time_is_not_timed_before(cache_dir: Path) -> None:
    found, costs = _priced(experiment("search.time_budget=10m"), cache_dir)
    assert not found
    assert not costs.costs.known(costs.work(experiment().defaults())[0])


def test_steps_of_the_largest_model_are_timed_in_its_slot(
    ray_of_tests: None, cache_dir: Path
) -> None:
    tried = experiment("training.finetune.epochs=1", "training.finetune.batch_size=6")
    found, costs = _priced(tried, cache_dir)
    assert [each.work.stage for each in found] == ["head", "finetune"]
    assert all(costs.costs.known(work) for work in costs.work(tried.defaults()))
