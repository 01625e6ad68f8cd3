"""What a run shows in each of its states."""

from __future__ import annotations

import json

import pytest

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.report import load_results


def test_a_finished_run_has_winner_control_and_counts(finished):
    run = load_results(finished)
    content = json.loads(json.dumps(run.to_json(), allow_nan=False))
    assert run.finished
    assert content["winner"]["test"]["accuracy"]["mean"] == pytest.approx(0.72)
    assert content["control"]["kind"] == "tuned"
    assert content["trials"] == {"COMPLETE": 2, "PRUNED": 1, "FAIL": 1, "RUNNING": 0}
    assert content["bundle"] == str(finished / "best")


def test_the_leaderboard_follows_the_direction_of_the_metric(under_way):
    run = load_results(under_way)
    assert run.metric == "validation/nll"
    assert run.leaderboard() == [
        {
            "trial": 1,
            "value": 0.5,
            "params": {"model.groups.count": 12, "loss.shared_center": 0.2},
        },
        {"trial": 0, "value": 1.5, "params": {"model.groups.count": 8, "loss.shared_center": 0.1}},
    ]
    assert len(run.leaderboard(top=1)) == 1


def test_an_unfinished_run_has_the_same_keys_without_an_answer(under_way, finished):
    (under_way / "results.json").unlink()
    unfinished = load_results(under_way).to_json()
    assert (unfinished["status"], unfinished["winner"]) == ("unfinished", None)
    assert unfinished["trials"] == {"COMPLETE": 2, "PRUNED": 1, "FAIL": 1, "RUNNING": 1}
    assert [row["trial"] for row in unfinished["leaderboard"]] == [1, 0]


def test_a_run_without_any_trial_is_readable(begun):
    run = load_results(begun)
    assert run.name == "birds"
    assert set(run.counts.values()) == {0}
    assert run.leaderboard() == []


def test_what_is_no_run_is_told(tmp_path, under_way):
    with pytest.raises(UserError, match="no such run"):
        load_results(tmp_path / "nothing")
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match="not a run directory"):
        load_results(tmp_path / "other")
    (under_way / "trials.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        load_results(under_way)
