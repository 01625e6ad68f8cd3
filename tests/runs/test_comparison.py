"""Runs side by side: what differs, and the winners on the same images."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest

from gsfl_tune.cli import main
from gsfl_tune.evidence.interval import difference
from gsfl_tune.experiment import UserError
from gsfl_tune.report.trials import Curve
from gsfl_tune.run import read_json, write_json
from gsfl_tune.run.results import SEEDS_AND_IMAGES, Difference, Interval
from gsfl_tune.runs import compare_runs
from gsfl_tune.runs.comparison import Pair
from gsfl_tune.runs.side_by_side import bars, write_page
from tests.report.runs import RunMaker
from tests.runs.made import answers, finished_run, shuffled


def share_right(predictions):
    """The mean accuracy over seeds, by a plain loop."""
    right = [
        int(np.argmax(row)) == label
        for each in predictions
        for row, label in zip(each.logits, each.labels, strict=True)
    ]
    return sum(right) / len(right)


def only(comparison):
    (pair,) = comparison.pairs
    return pair


def test_the_difference_is_that_of_the_same_images(tmp_path):
    one, other = answers(1, right=0.5), answers(2, right=0.8)
    runs = [finished_run(tmp_path / "a", one).path, finished_run(tmp_path / "b", other).path]
    pair = only(compare_runs(runs))
    assert pair.images == 60
    assert pair.seeds == (3, 3)
    assert pair.difference.mean == pytest.approx(share_right(other) - share_right(one))
    turned = only(compare_runs(runs[::-1]))
    assert turned.difference.mean == pytest.approx(-pair.difference.mean)
    assert turned.difference.interval.low == pytest.approx(-pair.difference.interval.high)
    assert "the winner of b is better than that of a" in pair.sentence
    assert "the winner of a is worse than that of b" in turned.sentence


def test_the_end_of_an_interval_that_excludes_0_is_not_shown_as_0():
    """A reader takes "+0.0 to +7.4" for an interval that contains 0."""
    interval = Interval(0.0002, 0.074, method=SEEDS_AND_IMAGES)
    pair = Pair("b", "a", Difference(0.037, interval), 600, (3, 3))
    assert "+3.7 points, 95 % interval +0.02 to +7.4" in pair.sentence
    assert pair.sentence.endswith("the winner of b is better than that of a.")


def test_images_in_another_order_are_matched_by_name(tmp_path):
    one, other = answers(1), answers(2)
    a = finished_run(tmp_path / "a", one).path
    straight = finished_run(tmp_path / "b", other, data="bb").path
    mixed = finished_run(tmp_path / "c", shuffled(other), data="cc").path
    found = compare_runs([a, straight, mixed]).pairs
    assert found[0].difference == found[1].difference
    # Taken in the order of the files, the pairs would be others.
    right = [np.stack([each.correct for each in p]) for p in (shuffled(other), one)]
    assert difference(*right).interval != found[0].difference.interval


def test_the_same_configuration_is_not_shown_to_differ(tmp_path):
    same = answers(1)
    runs = [finished_run(tmp_path / name, same).path for name in "ab"]
    pair = only(compare_runs(runs))
    assert pair.difference.mean == 0
    assert "no difference is shown" in pair.sentence


@pytest.mark.parametrize(
    ("single", "words"),
    [
        ("a", "with the one seed of a, b is better; whether it is with another training of a"),
        ("b", "with the one seed of b, b is better; whether it is with another training of b"),
        ("ab", "with one seed of each, b is better; whether another training is"),
    ],
)
def test_it_is_said_whose_single_seed_settles_nothing(tmp_path, single, words):
    runs = {
        "a": finished_run(tmp_path / "a", answers(1, right=0.3)),
        "b": finished_run(tmp_path / "b", answers(2, right=0.9)),
    }
    for name in single:
        results = read_json(runs[name].results_file)
        results["winner"]["seeds"] = results["winner"]["seeds"][:1]
        write_json(runs[name].results_file, results)
    found = compare_runs([run.path for run in runs.values()])
    sentence = only(found).sentence
    assert words in sentence
    assert sentence.endswith("too, is not known: not settled.")
    # The caption of the chart says the same as the sentence.
    page = write_page(found, tmp_path / "page.html").read_text()
    assert "the 95 % interval over the test images alone: what another training" in page
    assert "over seeds and test images" not in page


def test_intervals_that_cover_seeds_and_one_that_does_not(tmp_path):
    runs = [finished_run(tmp_path / name, answers(k)) for k, name in enumerate("abc")]
    results = read_json(runs[2].results_file)
    results["winner"]["seeds"] = results["winner"]["seeds"][:1]
    write_json(runs[2].results_file, results)
    page = write_page(compare_runs([run.path for run in runs]), tmp_path / "page.html").read_text()
    assert "over seeds and test images, for c over the test images alone" in page


def renamed(predictions, change):
    return [
        dataclasses.replace(each, paths=[change(p) for p in each.paths]) for each in predictions
    ]


def relabelled(predictions):
    return [
        dataclasses.replace(each, labels=np.where(each.labels == 1, 2, each.labels))
        for each in predictions
    ]


@pytest.mark.parametrize(
    ("predictions", "digests", "reason"),
    [
        (answers(2), {"data": "bb", "test": "uu"}, "the test images differ: b has 60, a has 60"),
        (
            answers(2, 40),
            {"data": "bb", "test": None},
            "the test images differ: b has 40, a has 60",
        ),
        (answers(2), {"data": "bb", "test": None}, "b did not record which images"),
        (renamed(answers(2), lambda p: f"x/{p}"), {"data": "bb"}, "their names are not"),
        (renamed(answers(2), lambda p: "one"), {"data": "bb"}, "their names are not"),
        (relabelled(answers(2)), {}, "15 of 60 test images have another class in a than in b"),
        (None, {}, "b: the predictions of its winner cannot be read"),
    ],
)
def test_other_test_images_are_refused_with_the_reason(tmp_path, predictions, digests, reason):
    a = finished_run(tmp_path / "a", answers(1)).path
    b = finished_run(tmp_path / "b", predictions, **digests).path
    pair = only(compare_runs([a, b]))
    assert pair.difference is None
    assert reason in pair.refused
    assert "cannot be compared" in pair.sentence


def test_an_unfinished_run_is_compared_by_its_best_trial(tmp_path):
    a = finished_run(tmp_path / "a", answers(1)).path
    b = RunMaker(tmp_path / "b", seed=1).begin().search(12).path
    found = compare_runs([a, b])
    assert "b is not finished" in only(found).refused
    board = found.runs[1].files.results.leaderboard(1)[0]
    assert found.runs[1].trial == board["trial"]
    assert found.runs[1].curve.values[-1] == pytest.approx(board["value"])
    assert dict(found.winners)["model.dropout"][1] == f"{board['params']['model.dropout']:.4g}"


def test_settings_that_differ_and_no_others(tmp_path):
    a, b = (finished_run(tmp_path / name, answers(1)) for name in "ab")
    text = b.experiment_file.read_text()
    text = text.replace("name: birds", "name: other").replace("trials: 30", "trials: 50")
    b.experiment_file.write_text(text.replace("{float: [0, 0.7]}", "0.3"))
    results = read_json(b.results_file)
    results["winner"]["config"]["model"]["dropout"] = 0.3
    results["winner"]["config"]["name"] = "other"
    results["winner"]["config"]["loss"] = {"isda": None}
    write_json(b.results_file, results)
    found = compare_runs([a.path, b.path])
    assert found.experiments == [
        ("model.dropout", ["float 0 to 0.7", "0.3"]),
        ("search.trials", ["30", "50"]),
    ]
    assert found.winners == [("model.dropout", ["0.302", "0.3"]), ("loss.isda", ["–", "null"])]


def test_names_are_as_short_as_they_can_be(tmp_path):
    paths = [tmp_path / "x" / "run", tmp_path / "y" / "run"]
    for path in paths:
        finished_run(path, answers(1))
    assert [run.name for run in compare_runs(paths).runs] == ["x/run", "y/run"]


def test_metrics_that_differ_leave_accuracy_for_the_curves(tmp_path):
    a, b = (finished_run(tmp_path / name, answers(1)) for name in "ab")
    results = read_json(b.results_file)
    write_json(b.results_file, results | {"metric": "validation/nll"})
    found = compare_runs([a.path, b.path])
    assert (found.metric, found.same_metric) == ("validation/accuracy", False)
    assert all(run.curve.values for run in found.runs)


@pytest.mark.parametrize(
    ("values", "drawn"),
    [
        ((0.0, 0.5, 1.0), "▁▅█"),
        ((0.0, None, 1.0), "▁ █"),
        ((), ""),
        (tuple(k / 63 for k in range(64)), "▁▁▂▂▃▃▄▄▅▅▆▆▇▇██"),
    ],
)
def test_a_curve_in_a_line(values, drawn):
    assert bars(Curve(values), 0.0, 1.0, width=16) == drawn
    assert bars(Curve((0.4, 0.4)), 0.4, 0.4) == "▅▅"


def test_a_terminal_of_80_columns_is_enough(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")
    runs = [finished_run(tmp_path / ("name " * 9 + n), answers(k)).path for k, n in enumerate("ab")]
    assert main(["compare", *map(str, runs)]) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().out)
    assert max(map(len, text.splitlines())) <= 80
    assert "Learning curves of the winners" in text


def test_names_with_brackets_are_headings_as_they_are(tmp_path, capsys):
    a, b = (finished_run(tmp_path / f"[{name}] run", answers(1)) for name in ("a", "bold"))
    results = read_json(b.results_file)
    results["winner"]["config"]["model"]["dropout"] = 0.3
    write_json(b.results_file, results)
    assert main(["compare", str(a.path), str(b.path)]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "key [a] run [bold] run" in lines


def test_a_pipe_and_json_and_a_page(tmp_path, capsys):
    runs = [finished_run(tmp_path / name, answers(k)).path for k, name in enumerate("ab")]
    page = tmp_path / "page.html"
    assert main(["compare", *map(str, runs), "--json", "--html", str(page)]) == 0
    content = json.loads(capsys.readouterr().out)
    (pair,) = content["differences"]
    assert pair["mean"] == pytest.approx(compare_runs(runs).pairs[0].difference.mean)
    assert pair["interval"]["level"] == 0.95
    assert "<title>a, b: gsfl-tune comparison</title>" in page.read_text()
    assert main(["compare", *map(str, runs)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("b minus a on the 60 common test images: ")
    assert "\x1b" not in out


def test_bad_input(tmp_path, capsys):
    run = str(finished_run(tmp_path / "a", answers(1)).path)
    assert main(["compare", run]) == 2
    assert "found 1 run, allowed two or more" in capsys.readouterr().err
    assert main(["compare", run, f"{run}/../a"]) == 2
    assert "named twice" in capsys.readouterr().err
    assert main(["compare", run, str(tmp_path)]) == 2
    assert "not a run directory" in capsys.readouterr().err
    other = str(finished_run(tmp_path / "b", answers(1)).path)
    assert main(["compare", run, other, "--html", str(tmp_path)]) == 2
    assert "the page cannot be written" in capsys.readouterr().err
    with pytest.raises(UserError, match="two or more"):
        compare_runs([])
