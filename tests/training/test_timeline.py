"""Rungs: where trials of one space are compared."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gsfl_tune.experiment import Experiment
from gsfl_tune.training import Timeline
from gsfl_tune.training.pricing import training_work
from gsfl_tune.training.pricing.pretraining import expected_epochs
from gsfl_tune.training.stages import STAGE_KINDS
from gsfl_tune.training.timeline import STAGES, pretraining_rungs

from .conftest import tiny_config


def epochs(timeline, largest, **settings):
    return [rung.epoch for rung in timeline.rungs(largest, **{"reduction": 3} | settings)]


def test_head_rungs_are_grace_times_powers_and_the_end():
    full = Timeline((30, 0))
    assert epochs(full, full, grace=2, reduction=3) == [2, 6, 18, 30]


def test_finetune_rungs_start_at_its_first_epoch():
    full = Timeline((10, 6))
    assert epochs(full, full, grace=1, reduction=3) == [1, 3, 9, 10, 11, 13, 16]
    assert [rung.stage for rung in full.rungs(full, reduction=3)] == ["head"] * 4 + ["finetune"] * 3


def test_a_shorter_stage_reports_its_end_at_its_remaining_rungs():
    assert epochs(Timeline((5, 2)), Timeline((30, 9))) == [1, 3, 5, 5, 5, 6, 7, 7]


def test_a_trial_without_finetune_reports_the_end_of_its_head():
    assert epochs(Timeline((3, 0)), Timeline((3, 3))) == [1, 3, 3, 3]


def test_an_end_on_a_milestone_is_one_rung():
    assert epochs(Timeline((9, 0)), Timeline((9, 0))) == [1, 3, 9]


@given(
    head=st.integers(0, 40),
    finetune=st.integers(0, 20),
    more_head=st.integers(0, 40),
    more_finetune=st.integers(0, 20),
    grace=st.integers(1, 5),
    reduction=st.integers(2, 4),
)
def test_every_trial_of_a_space_has_the_same_rungs_in_order(
    head, finetune, more_head, more_finetune, grace, reduction
):
    if head + finetune == 0:
        head = 1
    own, largest = (
        Timeline((head, finetune)),
        Timeline((head + more_head, finetune + more_finetune)),
    )
    rungs = own.rungs(largest, grace=grace, reduction=reduction)
    reference = largest.rungs(largest, grace=grace, reduction=reduction)
    assert len(rungs) == len(reference)
    assert [rung.index for rung in rungs] == list(range(len(rungs)))
    reached = [rung.epoch for rung in rungs]
    assert reached == sorted(reached)
    assert reached[0] >= 1
    assert reached[-1] == own.total


def test_stages_follow_each_other_in_the_order_of_the_table():
    timeline = Timeline((2, 3))
    names = [timeline.stage(epoch).name for epoch in range(5)]
    assert names == ["head", "head", "finetune", "finetune", "finetune"]
    assert [timeline.stage_start(each.name) for each in STAGES] == [0, 2]
    assert [Timeline((0, 3)).stage(0).name, Timeline((3, 0)).stage(2).name] == ["finetune", "head"]
    assert list(STAGE_KINDS) == [each.name for each in STAGES]


@pytest.mark.parametrize("epochs", [(2, 0), (0, 3), (2, 3)])
def test_every_stage_with_epochs_has_a_price(epochs):
    timeline = Timeline(epochs)
    sections = {each.name: {"epochs": timeline.of_stage(each.name)} for each in STAGES}
    works = training_work(tiny_config(training=sections), train=60, validation=9, classes=3)
    priced = [(each.name, timeline.of_stage(each.name)) for each in STAGES]
    assert [(work.stage, work.epochs) for work in works] == [each for each in priced if each[1]]
    assert all(work.operations > 0 for work in works)
    assert timeline.trains_backbone == (epochs[1] > 0)


PRETRAINED = """\
name: t
data: {source: typefaces}
model: {backbone: resnet18}
training: {pretrain: {choice: [false, true]}}
pretrain: {epochs: {choice: [30, 100]}}
search: {scheduler: {pretrain_grace: 25}}
"""


@pytest.mark.parametrize(
    ("overrides", "rungs"),
    [
        ((), [25, 50, 100]),
        (("search.scheduler.reduction=3",), [25, 75, 100]),
        (("search.scheduler.pretrain_grace=200",), [100]),
        (("search.scheduler.pretrain_grace=null",), []),
    ],
)
def test_pretrainings_have_rungs_of_their_own(overrides, rungs):
    assert pretraining_rungs(Experiment.parse(PRETRAINED, overrides=overrides)) == rungs


def test_one_in_reduction_pretrainings_passes_a_rung():
    assert expected_epochs([25, 50, 100], 2) == 25 + 25 / 2 + 50 / 4
    assert expected_epochs([100], 2) == 100
