"""``results.json`` keeps what was put into it."""

from __future__ import annotations

import json

import pytest

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.run.results import Interval, Score, read_results, write_results
from tests.report.conftest import make_results


def test_reads_what_was_written(tmp_path):
    for results in (make_results(), make_results(control=None, difference=None, probe=None)):
        write_results(tmp_path / "results.json", results)
        assert read_results(tmp_path / "results.json") == results


def test_the_file_has_the_keys_that_scripts_rely_on(tmp_path):
    write_results(tmp_path / "results.json", make_results())
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["status"] == "finished"
    assert content["trials"]["COMPLETE"] == 2
    for model in (content["winner"], content["control"]):
        assert model["config"]["model"]["backbone"] == "tf_efficientnet_lite0"
        for part in ("validation", "test"):
            assert set(model[part]["accuracy"]) == {"mean", "std", "values"}
    assert set(content["difference"]["interval"]) == {"low", "high", "level", "method"}


def test_deviation_is_that_of_a_sample():
    score = Score.of([0.70, 0.74, 0.72])
    assert score.mean == pytest.approx(0.72)
    assert score.std == pytest.approx(0.02)
    assert Score.of([0.5]).std == 0.0
    table = Score.table([{"accuracy": 0.5, "nll": 1.0}, {"accuracy": 0.7, "nll": 2.0}])
    assert (table["accuracy"].mean, table["nll"].values) == (0.6, [1.0, 2.0])


@pytest.mark.parametrize("values", [[], [float("nan")], [1.0, float("inf")]])
def test_a_score_is_a_number(values):
    with pytest.raises(ValueError, match="finite"):
        Score.of(values)


def test_an_interval_knows_whether_it_shows_something():
    assert Interval(-0.1, 0.0).contains_zero
    assert not Interval(0.01, 0.1).contains_zero


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "not a results file"), ("[]", "not a results file"), ('{"format": 7}', "format 7")],
)
def test_damage_is_told(tmp_path, text, message):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_results(path)


def test_keys_of_a_newer_writer_are_ignored(tmp_path):
    path = tmp_path / "results.json"
    content = make_results().to_json() | {"calibration": {"temperature": 1.1}}
    path.write_text(json.dumps(content))
    assert read_results(path) == make_results()
