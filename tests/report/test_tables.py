"""The text is right, and fits into 80 columns."""

from __future__ import annotations

import io
import json
import shlex
from dataclasses import replace

import pandas as pd
import pytest
from rich.console import Console

from gsfl_tune.cli import _parser
from gsfl_tune.report import load_results, print_results
from gsfl_tune.run import RunDirectory
from gsfl_tune.run.results import (
    Difference,
    Finding,
    Flip,
    Interval,
    Probe,
    Score,
    read_results,
    write_results,
)
from tests.report.conftest import make_results, scores
from tests.report.test_page import page_of, read_run, render


def text_of(path) -> str:
    stream = io.StringIO()
    print_results(load_results(path), Console(file=stream, width=80, highlight=False))
    return stream.getvalue()


def test_the_answer_comes_first_and_says_what_it_means(finished):
    text = text_of(finished)
    lines = text.splitlines()
    assert lines[0] == "birds: test accuracy 72.0 % (68.1 to 75.4), control 70.0 %"
    assert lines[1] == "(95 % interval over 3 seeds and the test images)"
    flat = " ".join(text.split())
    assert (
        "Winner minus control on the test images: +2.0 points, 95 % interval -1.0 to +5.0 "
        "(paired bootstrap over test images); on validation, where the winner was "
        "chosen, +3.0 points; no difference is shown."
    ) in flat
    assert "; the winner is better than the linear probe." in flat
    assert "±" not in text
    assert "control, tuned" in text
    assert "2 finished, 1 stopped early, 1 failed" in text
    assert "search 3 min 20 s, retrain 1 h 01 min, total 1 h 05 min" in text


def test_it_shows_the_searched_parameters_and_the_best_trials(finished):
    lines = [line.rstrip() for line in text_of(finished).splitlines()]
    assert any(line.split() == ["model.groups.count", "12"] for line in lines)
    assert any(line.split() == ["loss.shared_center", "0.0751"] for line in lines)
    start = lines.index("Best trials")
    assert lines[start + 2].split()[:2] == ["1", "0.5000"]
    assert lines[start + 3].split()[:2] == ["0", "1.5000"]


@pytest.mark.parametrize("state", ["begun", "under_way", "finished"])
def test_every_line_fits(state, request):
    path = request.getfixturevalue(state)
    lines = [line for line in text_of(path).splitlines() if str(path) not in line]
    assert max(map(len, lines)) <= 80


def test_the_command_to_continue_can_be_copied(under_way):
    lines = [shlex.split(line) for line in text_of(under_way).splitlines() if "--resume" in line]
    assert lines[0][-4:] == [
        str(under_way / "experiment.yaml"),
        "--run-dir",
        str(under_way),
        "--resume",
    ]


def test_objectives_that_are_means_are_shown_with_their_errors(begun):
    entry = {"trial": 7, "accuracy": 0.7, "validation/nll": 1.25, "params": {}, "config": {}}
    errors = {"validation/accuracy": 0.0123, "validation/nll": 0.052, "macs": 1e-17, "size_mb": 0.0}
    entry |= {"size_mb": 9.5, "macs": 3e8}
    write_results(
        RunDirectory(begun).results_file,
        make_results(pareto=[{**entry, "errors": errors, "replicates": 5}]),
    )
    text = text_of(begun)
    assert "0.7000 ± 0.012" in text
    assert "1.25 ± 0.052" in text
    # Equal numbers have no error.
    assert text.count("±") == 2
    assert "replicates" not in text.partition("Pareto front")[2]


def test_the_first_objective_of_a_front_has_its_own_name(begun):
    entry = {"trial": 7, "accuracy": 0.7, "size_mb": 1.25, "params": {}, "config": {}}
    write_results(
        RunDirectory(begun).results_file,
        make_results(metric="validation/macro_f1", pareto=[entry]),
    )
    front = text_of(begun).partition("Pareto front")[2].splitlines()
    assert front[1].split() == ["trial", "macro_f1", "MB", "parameters"]


def test_the_front_of_two_objectives_is_shown_with_the_command_that_chooses(begun):
    winner = make_results().winner.trial
    params = {"model.backbone": "resnet18", "loss.shared_center": 0.0751234}
    write_results(
        RunDirectory(begun).results_file,
        make_results(
            pareto=[
                {"trial": 7, "accuracy": 0.7, "latency_ms": 3.126, "params": params, "config": {}},
                {
                    "trial": winner,
                    "accuracy": 0.8,
                    "latency_ms": 12,
                    "params": {},
                    "config": {},
                    "latency_reliable": True,
                },
                {
                    "trial": 9,
                    "accuracy": 0.9,
                    "latency_ms": 1907.3,
                    "params": {},
                    "config": {},
                    "latency_reliable": False,
                },
            ]
        ),
    )
    text = text_of(begun)
    rows = [line.split() for line in text.splitlines()]
    assert ["7", "0.7000", "3.13", "backbone", "resnet18,", "shared_center"] in [
        row[:6] for row in rows
    ]
    assert [str(winner), "(winner)", "0.8000", "12.00"] in rows
    assert ["9", "0.9000", "1907.30", "?"] in rows
    assert "? unreliable: measured while the machine was busy" in text
    (command,) = (line for line in text.splitlines() if "--pick" in line)
    arguments = _parser().parse_args(shlex.split(command)[1:])
    assert (arguments.run_dir, arguments.pick) == (begun, ["fastest-within", "0.5"])


def test_a_question_mark_of_the_front_is_explained_with_spread_and_load(under_way):
    """PyTorch at 1,907 ms beside ONNX at 58 ms was printed as a fact."""
    run = RunDirectory(under_way)
    entry = {"accuracy": 0.7, "latency_ms": 3.1, "params": {}, "config": {}}
    results = make_results(
        pareto=[
            {**entry, "trial": 0, "latency_reliable": False},
            {**entry, "trial": 1, "latency_reliable": True},
        ]
    )
    write_results(run.results_file, results)
    # Earlier versions did not keep what disturbed a measurement.
    assert "trial 0:" not in text_of(under_way)
    table = pd.read_parquet(run.trials_parquet)
    table["latency_reliable"] = [number == 1 for number in table["number"]]
    table["latency_spread"] = 0.35
    table["latency_others"] = 1.8
    table.to_parquet(run.trials_parquet)
    flat = " ".join(text_of(under_way).split())
    assert (
        "trial 0: parts of the measurement differed by 35 %, other processes used 1.8 cores" in flat
    )
    assert "trial 1:" not in flat


def test_an_unfinished_run_says_so_and_how_to_go_on(under_way):
    text = text_of(under_way)
    assert text.startswith("birds: not finished")
    assert "--resume" in text
    assert "Best trials" in text
    assert "1 running" in text


def test_a_simpler_model_that_is_ahead_comes_before_everything(begun):
    """A winner at 91.5 % beside a probe at 94.9 % was called "no difference shown"."""
    probe = Probe(scores(0.85), Difference(-0.01, Interval(-0.04, 0.02)), scores(0.9))
    found = [
        Finding("few_images", "warning", {}, "Only 136 test images."),
        Finding("range_end", "note", {}, "dropout is at its end."),
    ]
    results = make_results(probe=probe, findings=found, metric="validation/accuracy")
    write_results(RunDirectory(begun).results_file, results)
    flat = " ".join(text_of(begun).split())
    assert flat.startswith(
        "The linear probe is better than the winner on the validation images (90.0 % against "
        "81.0 %): its bundle is in best-simple/."
    )
    assert flat.index("warning Only 136 test images.") < flat.index("note dropout is at its end.")


def test_names_with_brackets_are_shown_as_they_are(under_way):
    """Class folders, values and names of parts are not rich's markup."""
    found = [
        Finding("class", "severe", {}, "one class, sign [left], for images of 4 other classes."),
        Finding("class", "note", {}, "one class, [/x], for images of [bold] classes."),
    ]
    plain = make_results()
    winner = replace(plain.winner, params={"model.weights": "a/[old]/b [/x].pt"})
    results = make_results(findings=found, winner=winner)
    run = RunDirectory(under_way)
    write_results(run.results_file, results)
    table = pd.read_parquet(run.trials_parquet)
    table["params.model.weights"] = "c/[new] [/x].pt"
    table.to_parquet(run.trials_parquet)
    text = text_of(under_way)
    flat = " ".join(text.split())
    assert "one class, sign [left], for images of 4 other classes." in flat
    assert "one class, [/x], for images of [bold] classes." in flat
    assert "model.weights a/[old]/b [/x].pt" in flat
    assert "c/[new] [/x].pt" in flat


def test_the_bundle_is_one_of_the_seeds_whose_mean_is_shown(finished):
    """The headline is a mean; what a user deploys is the first seed."""
    said = (
        "The bundle of the winner holds the first of its 3 seeds, which has 70.0 % on the test "
        "images (seeds: 70.0 to 74.0 %)."
    )
    RunDirectory(finished).best.mkdir(exist_ok=True)
    assert said in " ".join(text_of(finished).split())
    assert said in page_of(finished).text("headline")


def test_one_seed_has_no_deviation_and_no_control_no_sentence(begun):
    results = make_results(control=None, difference=None, probe=None)
    single = {name: Score.of([0.5]) for name in results.winner.test}
    winner = results.winner.__class__(config={}, validation=single, test=single, seeds=[0])
    write_results(
        RunDirectory(begun).results_file,
        make_results(control=None, difference=None, probe=None, winner=winner),
    )
    text = text_of(begun)
    assert text.splitlines()[0] == "birds: test accuracy 50.0 %"
    assert "minus" not in text
    assert "first of" not in text
    assert "nothing was searched" in text


def test_the_bundle_is_shown_with_its_temperature(finished):
    file = finished / "results.json"
    content = json.loads(file.read_text())
    score = {"mean": 0.4321, "std": 0.0, "values": [0.4321]}
    content["winner"]["calibration"] = {
        "temperature": 0.5,
        "images": 60,
        "seeds": 3,
        "wrong": 9,
        "before": content["winner"]["test"],
        "after": {"nll": score, "ece": {**score, "mean": 0.0123}},
        "rejections": [],
    }
    file.write_text(json.dumps(content))
    lines = [line.split() for line in text_of(finished).splitlines()]
    assert ["calibrated,", "T", "=", "0.50", "0.432", "0.012"] in lines
    page = page_of(finished).text("models-table")
    assert "winner, calibrated (T = 0.50)" in page
    assert "0.432" in page
    assert "0.012" in page


def test_flip_is_shown_beside_the_same_network_without_it(finished):
    file = RunDirectory(finished).results_file
    flip = Flip(4, 2000, scores(0.71), scores(0.734))
    write_results(file, replace(read_results(file), flip=flip))
    text = text_of(finished)
    rows = [line.split() for line in text.splitlines()]
    assert ["seed", "4,", "2,000", "images", "71.0", "%"] in [row[:6] for row in rows]
    assert ["mirrored", "too", "73.4", "%"] in [row[:4] for row in rows]
    assert max(len(line) for line in text.splitlines() if str(finished) not in line) <= 80
    page = page_of(finished).text("models-table")
    assert "seed 4 on 2,000 images" in page
    assert "seed 4, mirrored too" in page


def test_trials_of_several_folds_are_listed_with_their_error(under_way):
    file = RunDirectory(under_way).trials_parquet
    table = pd.read_parquet(file)
    # Trial 0 is the mean of three folds; of trial 2 one has ended.
    table["error"] = [0.0123, None, None, None, None, None]
    table["replicates"] = pd.array([3, None, 1, None, None, None], dtype="Int64")
    table.to_parquet(file)
    lines = [line.split() for line in text_of(under_way).splitlines()]
    assert ["trial", "nll", "error", "replicates", "parameters"] in lines
    assert next(line for line in lines if line[:2] == ["0", "1.5000"])[2:4] == ["0.0123", "3"]
    assert next(line for line in lines if line[:2] == ["1", "0.5000"])[2:4] == ["-", "-"]
    first, second = load_results(under_way).leaderboard()
    assert "error" not in first
    assert (second["error"], second["replicates"]) == (0.0123, 3)
    page = render(read_run(under_way))
    assert "Sort by replicates" in page
    assert "0.0123" in page


@pytest.mark.parametrize("ahead", [True, False])
def test_a_simpler_bundle_that_is_left_over_is_not_called_better(begun, *, ahead):
    run = RunDirectory(begun)
    probe = Probe(scores(0.85), Difference(-0.01, Interval(-0.04, 0.02)), scores(0.9))
    changes = {"probe": probe} if ahead else {}
    write_results(run.results_file, make_results(metric="validation/accuracy", **changes))
    run.best_simple.mkdir()
    assert ("Better on validation" in text_of(begun)) == ahead
