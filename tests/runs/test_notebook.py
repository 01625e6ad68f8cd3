"""A run in Python: tables, figures, and short texts about it."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from gsfl_tune import Run, UserError, read_results
from gsfl_tune.run import run_lock
from tests.report.runs import RunMaker
from tests.runs.made import answers, finished_run


@pytest.fixture(scope="module")
def maker(tmp_path_factory) -> RunMaker:
    return RunMaker(tmp_path_factory.mktemp("runs") / "run").begin().search(30).finish().evidence()


@pytest.fixture
def run(maker) -> Run:
    return Run(maker.path)


def test_tables_are_those_of_the_files(run, maker):
    table = pd.read_parquet(maker.run.trials_parquet)
    pd.testing.assert_frame_equal(run.trials, table)
    copy = run.trials
    copy["value"] = 0
    pd.testing.assert_frame_equal(run.trials, table)
    complete = table[table["state"] == "COMPLETE"]
    assert run.best["value"] == complete["value"].max()
    epochs = run.epochs(run.best["trial"])
    assert list(epochs["epoch"]) == list(range(1, 28))
    assert epochs["validation/accuracy"].iloc[-1] == pytest.approx(run.best["value"])


def test_it_says_what_it_is_in_a_line(run, maker):
    text = repr(run)
    assert text.startswith(f"Run('{maker.path}', finished, 30 trials, best ")
    assert text.endswith("test accuracy 72.3 %)")
    assert (run.name, run.metric, str(run.state)) == ("birds", "validation/accuracy", "finished")
    assert run.experiment.name == "birds"
    for each in (run.results, run.winner, run.results.control, run.plot_best()):
        assert len(repr(each)) < 200
    assert repr(run.winner) == "Outcome(trial 3, 3 seeds, test accuracy 72.3 %)"


def test_results_are_read_from_a_directory_or_a_file_text_or_path(maker):
    one = read_results(maker.path)
    for place in (str(maker.path), maker.run.results_file, str(maker.run.results_file)):
        assert read_results(place) == one


def lines(figure: Figure) -> list[tuple[list[float], list[float]]]:
    (axes,) = figure.axes
    return [
        (list(line.get_xdata()), list(line.get_ydata()))
        for line in axes.get_lines()
        if line.get_linestyle() != "None" and len(line.get_xdata())
    ]


def test_curves_are_those_of_the_epochs(run):
    figure = run.plot_curves([0, 3])
    drawn = sorted(len(x) for x, _ in lines(figure))
    assert drawn == sorted([len(run.epochs(0)), len(run.epochs(3))])
    longest = max(lines(figure), key=lambda line: len(line[0]))
    assert longest[1] == pytest.approx(list(run.epochs(3)["validation/accuracy"]))
    assert len(lines(run.plot_curves())) == 30


def test_losses_of_training_and_validation_are_in_one_plot(run, maker):
    figure = run.plot_training()
    above, below = figure.axes
    drawn = {line.get_label(): list(line.get_ydata()) for line in above.get_lines()}
    epochs = run.epochs(run.winner.trial)
    assert drawn == {
        "training loss": list(epochs["train/loss"]),
        "its cross-entropy alone": list(epochs["train/cross_entropy"]),
        "validation loss": list(epochs["validation/nll"]),
    }
    (line,) = below.get_lines()
    assert list(line.get_ydata()) == list(epochs["validation/accuracy"])
    assert list(line.get_xdata()) == list(epochs["epoch"])
    assert above.get_title(loc="left") == f"trial {run.winner.trial}"
    other = run.plot_training(0).axes[0].get_lines()[0]
    assert list(other.get_ydata()) == list(run.epochs(0)["train/loss"])
    with pytest.raises(UserError, match="found trial 99, allowed 0 to 29"):
        run.plot_training(99)


def test_without_a_finished_trial_there_are_no_losses_to_draw(tmp_path):
    begun = Run(RunMaker(tmp_path / "run").begin().path)
    with pytest.raises(UserError, match="no trial has finished yet"):
        begun.plot_training()


def test_the_best_value_rises_to_the_best(run):
    (line,) = lines(run.plot_best())
    assert line[1] == sorted(line[1])
    assert line[1][-1] == pytest.approx(run.best["value"], rel=1e-4)


def test_a_parameter_against_the_result(run):
    figure = run.plot_parameter("model.dropout")
    (axes,) = figure.axes
    points = {
        (float(line.get_xdata()[0]), float(line.get_ydata()[0]))
        for line in axes.get_lines()
        if len(line.get_xdata()) == 1
    }
    table = run.trials[run.trials["state"] == "COMPLETE"]
    expected = set(zip(table["params.model.dropout"], table["value"], strict=True))
    assert expected <= points
    assert len(points) == 30
    assert run.plot_parameter("loss.shared_center").axes[0].get_xscale() == "log"
    words = [
        each.get_text()
        for each in run.plot_parameter("model.groups.method").axes[0].get_xticklabels()
    ]
    assert sorted(words) == ["kmeans", "random"]


def test_importances_are_drawn_with_how_far_they_can_be_trusted(run):
    figure = run.plot_importance(0)
    (axes,) = figure.axes
    assert "out-of-bag R²" in axes.get_title()
    names = {each.get_text() for each in axes.get_yticklabels()}
    assert "model.dropout" in names


def test_the_confusion_matrix_has_rows_of_true_classes(run):
    axes = run.plot_confusion().axes[0]
    shares = axes.get_images()[0].get_array()
    assert shares.shape == (12, 12)
    assert np.allclose(np.asarray(shares).sum(axis=1), 1)


def test_a_notebook_shows_a_figure_and_a_run(run):
    png = run.plot_best(size=(4, 3))._repr_png_()
    assert Image.open(io.BytesIO(png)).size == (400, 300)
    assert "<td>finished</td>" in run._repr_html_()


def test_what_changed_on_disk_is_read_again(tmp_path):
    maker = RunMaker(tmp_path / "<run>").begin()
    run = Run(str(maker.path))
    assert (run.winner, run.results, run.best) == (None, None, None)
    assert "&lt;run&gt;" in run._repr_html_()
    maker.search(12)
    assert len(run.trials) == 12
    assert str(run.state) == "interrupted"
    with run_lock(maker.run):
        assert str(run.state) == "running"
    maker.finish()
    assert run.winner.trial == 3
    with pytest.raises(UserError, match="no bundle"):
        run.bundle()


def test_runs_are_compared_with_runs(tmp_path):
    one, other = (Run(finished_run(tmp_path / n, answers(k)).path) for k, n in enumerate("ab"))
    assert one.compare(other).pairs == one.compare(other.path).pairs
    assert repr(one.compare(other)) == "Comparison(a, b)"
