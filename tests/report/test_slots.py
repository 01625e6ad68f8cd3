"""The timeline: as many lanes as worked at once, pauses cut out."""

from __future__ import annotations

import pytest

from gsfl_tune.report.slots import timeline
from gsfl_tune.report.trials import TrialRecord


def stretch(worker, begin, end, trial=0, node="a", **more):
    return {
        "study": "search", "trial": trial, "node": node, "worker": worker, "begin": begin,
        "end": end, **more,
    }  # fmt: skip


def test_a_worker_keeps_its_lane_and_its_rungs_become_one_bar():
    found = timeline(
        [
            stretch(1, 100, 110),
            stretch(2, 100, 104, 1),
            stretch(1, 110.1, 130),
            stretch(2, 104.2, 108, 2),
            stretch(1, 130, 131, 3),
        ],
        [],
    )
    assert [[bar.name for bar in lane.bars] for lane in found.lanes] == [
        ["trial 0", "trial 3"],
        ["trial 1", "trial 2"],
    ]
    assert (found.lanes[0].bars[0].begin, found.lanes[0].bars[0].end) == (0, 30)
    assert found.seconds == 31
    assert found.busy == pytest.approx((31 + 4 + 3.8) / 62)


def test_short_trials_side_by_side_are_not_squeezed_into_one_lane():
    bars = [
        stretch(w, 100 + 0.3 * k, 100.29 + 0.3 * k, 2 * k + w) for k in range(9) for w in (0, 1)
    ]
    found = timeline(bars, [])
    assert len(found.lanes) == 2
    assert all(bar.end - bar.begin > 0.25 for lane in found.lanes for bar in lane.bars)


def test_a_process_that_follows_another_takes_its_lane():
    found = timeline([stretch(1, 0, 10), stretch(7, 10.5, 20, 1), stretch(8, 21, 30, 2)], [])
    assert len(found.lanes) == 1


def test_what_was_stopped_for_the_night_is_cut_out():
    found = timeline([stretch(1, 0, 10), stretch(2, 50_000, 50_020, 1)], [])
    assert found.seconds == 30
    assert found.pauses == [(10, 49_990)]
    assert found.busy == 1


def test_slots_that_wait_while_the_driver_goes_on_are_idle():
    found = timeline(
        [
            stretch(1, 0, 10, session=0),
            stretch(1, 310, 400, 1, session=0),
            stretch(2, 5000, 5100, 2, session=1),
        ],
        [],
    )
    assert found.pauses == [(400, 4600)]
    assert (found.seconds, found.cut) == (500, 4600)
    assert found.busy == pytest.approx(200 / 500)


def test_lanes_belong_to_nodes_and_there_may_be_many():
    bars = [stretch(w, 0, 10, w, node=f"node {w % 2}") for w in range(300)]
    found = timeline(bars, [])
    assert len(found.lanes) == 128
    assert found.left_out == 172
    assert [lane.node for lane in found.lanes] == sorted(lane.node for lane in found.lanes)


def test_retrains_and_controls_are_told_apart():
    bars = [
        stretch(1, 0, 5),
        {**stretch(1, 5, 9), "study": "control"},
        {"job": "search-4 seed 1", "node": "a", "worker": 3, "begin": 9, "end": 12},
    ]
    (lane,) = timeline(bars, []).lanes
    assert [(bar.kind, bar.name) for bar in lane.bars] == [
        ("search", "trial 0"),
        ("control", "control trial 0"),
        ("retrain", "search-4 seed 1"),
    ]


def test_a_run_without_the_file_shows_when_trials_began_and_ended():
    found = timeline([], [TrialRecord("search", 0, "COMPLETE", begin=5.0, end=9.0)])
    assert not found.measured
    assert found.seconds == 4
    assert timeline([], [TrialRecord("search", 0, "RUNNING", begin=5.0)]) is None
