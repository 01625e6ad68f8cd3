"""Public functions say what they found and what is allowed, whatever they are called with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import gsfl_tune
from gsfl_tune import Experiment, Run, UserError, compare_runs, find_runs, load_bundle, read_results
from gsfl_tune.export import bundle_from_network
from tests.export.conftest import CLASSES, GROUPS, METRICS, SIDE, config, network
from tests.report.runs import RunMaker

__all__ = ["config", "network"]

TEXT = "name: x\ndata: {source: typefaces}\nmodel: {dropout: {float: [0, 0.5]}}\n"


@pytest.fixture(scope="module")
def there(tmp_path_factory, config, network):
    """What calls are made with; no call changes it."""
    home = tmp_path_factory.mktemp("home")
    (home / "x.yaml").write_text(TEXT)
    (home / "empty").mkdir()
    run = RunMaker(home / "run").begin().search(12).finish()
    bundle_path = bundle_from_network(
        home / "bundle", network, config, classes=CLASSES, groups=GROUPS, side=SIDE, metrics=METRICS
    )
    return {
        "experiment": Experiment.parse(TEXT),
        "bundle": load_bundle(bundle_path, "cpu"),
        "bundle_path": bundle_path,
        "run": Run(run.path),
        "unfinished": RunMaker(home / "unfinished").begin().path,
        "empty": home / "empty",
        "file": home / "x.yaml",
    }


# What is called, the class of the error, what was found, what is allowed.
CALLS = [
    # Experiments
    (lambda t: Experiment.load(3), TypeError, "3 (int)", "a path as text or Path"),
    (lambda t: Experiment.load(None), TypeError, "None", "a path as text or Path"),
    (lambda t: Experiment.load(b"x.yaml"), TypeError, "b'x.yaml' (bytes)", "a path as text"),
    (lambda t: Experiment.load("x\0"), ValueError, "'x\\x00'", "the name of a file"),
    (lambda t: Experiment.load(""), UserError, "", "does not exist"),
    (lambda t: Experiment.load(t["empty"]), UserError, "is a directory", "not a file"),
    (
        lambda t: Experiment.load(t["file"], "name=y"),
        TypeError,
        "'name=y' (str)",
        "a list of texts",
    ),
    (
        lambda t: Experiment.parse(Path("x.yaml")),
        TypeError,
        "PosixPath",
        "the text of an experiment",
    ),
    (lambda t: Experiment.parse(TEXT, overrides=[3]), TypeError, "3 (int)", "a list of texts"),
    (lambda t: Experiment.parse("- 1"), UserError, "found a list", "a mapping"),
    (lambda t: t["experiment"].configure(["a"]), TypeError, "['a'] (list)", "a mapping of names"),
    (lambda t: t["experiment"].fixed("a=1"), TypeError, "'a=1' (str)", "a mapping of dotted paths"),
    (lambda t: t["experiment"].values(3), TypeError, "3 (int)", "a dotted path"),
    (lambda t: t["experiment"].bounds("model.drop"), UserError, "model.drop", "dropout"),
    # Searching and training
    (lambda t: gsfl_tune.search("x.yaml"), TypeError, "'x.yaml' (str)", "an Experiment"),
    (lambda t: gsfl_tune.search(t["experiment"], 3), TypeError, "3 (int)", "a path"),
    (
        lambda t: gsfl_tune.search(t["experiment"], t["empty"] / "r", resume="yes"),
        TypeError,
        "'yes' (str)",
        "True, False, None",
    ),
    (
        lambda t: gsfl_tune.search(t["experiment"], t["empty"] / "r", change_space="a=1"),
        TypeError,
        "'a=1' (str)",
        "True, False",
    ),
    (
        lambda t: gsfl_tune.search(t["experiment"], t["empty"] / "r", address=6379),
        TypeError,
        "6379 (int)",
        "the address of a Ray cluster",
    ),
    (
        lambda t: gsfl_tune.search(t["experiment"], t["empty"] / "r", cache_dir=3),
        TypeError,
        "3 (int)",
        "a path as text or Path",
    ),
    (
        lambda t: gsfl_tune.search(t["experiment"], t["empty"] / "r", watchers=3),
        TypeError,
        "3 (int)",
        "a list of Watchers",
    ),
    (
        lambda t: gsfl_tune.search(t["experiment"], t["empty"] / "r", watchers=[print]),
        TypeError,
        "print",
        "a list of Watchers",
    ),
    (lambda t: gsfl_tune.train("x.yaml", "out"), TypeError, "'x.yaml' (str)", "an Experiment"),
    (lambda t: gsfl_tune.train(t["experiment"], None), TypeError, "None", "a path"),
    (
        lambda t: gsfl_tune.train(t["experiment"], t["empty"] / "t", on_epoch="print"),
        TypeError,
        "'print' (str)",
        "a function",
    ),
    (
        lambda t: gsfl_tune.train(t["experiment"], t["empty"] / "t", cache_dir=3),
        TypeError,
        "3 (int)",
        "a path as text or Path",
    ),
    # Bundles
    (lambda t: load_bundle(None), TypeError, "None", "a path as text or Path"),
    (lambda t: load_bundle(t["empty"] / "no"), UserError, "no such bundle", "a directory"),
    (lambda t: load_bundle(t["bundle_path"], "gpu"), UserError, "'gpu'", "auto, cpu, cuda"),
    (lambda t: load_bundle(t["bundle_path"], 0), TypeError, "0 (int)", "auto, cpu, cuda"),
    (lambda t: t["bundle"].predict(3), TypeError, "3 (int)", "a path, the content of a file"),
    (lambda t: t["bundle"].predict({"a.jpg": 1}), TypeError, "(dict)", "a path, the content"),
    (lambda t: t["bundle"].predict([None]), UserError, "image 0", "a path, the content of a file"),
    (lambda t: t["bundle"].predict("no.jpg"), UserError, "no.jpg", "no such file"),
    (
        lambda t: t["bundle"].predict(np.zeros((8, 8, 3))),
        UserError,
        "float64",
        "an array must be uint8",
    ),
    (lambda t: t["bundle"].predict("a.jpg", top=0), ValueError, "0", "a whole number from 1 on"),
    (lambda t: t["bundle"].predict("a.jpg", top="5"), TypeError, "'5' (str)", "a whole number"),
    (lambda t: t["bundle"].predict("a.jpg", batch_size=2.5), TypeError, "2.5 (float)", "a whole"),
    (lambda t: t["bundle"].predict("a.jpg", threshold=2), UserError, "2", "a probability"),
    (lambda t: t["bundle"].predict("a.jpg", on_error="skip"), TypeError, "'skip'", "a function"),
    (lambda t: t["bundle"].neighbours("a.jpg", count="3"), TypeError, "'3' (str)", "a whole"),
    (lambda t: t["bundle"].neighbours("a.jpg", count=0), ValueError, "0", "a whole number from 1"),
    (lambda t: t["bundle"].neighbours("a.jpg"), UserError, "training images", "--with-neighbours"),
    (
        lambda t: t["bundle"].neighbours("a.jpg", on_error="skip"),
        TypeError,
        "'skip'",
        "a function",
    ),
    (lambda t: t["bundle"].threshold(None), UserError, "None", "a probability from 0 to 1, auto"),
    (lambda t: t["bundle"].threshold(1.5), UserError, "1.5", "a probability from 0 to 1, auto"),
    (lambda t: t["bundle"].threshold("auto"), UserError, "auto", "a probability from 0 to 1"),
    (lambda t: t["bundle"].evaluate("folder"), TypeError, "'folder' (str)", "a Dataset"),
    (lambda t: t["bundle"].logits("a.jpg"), TypeError, "'a.jpg' (str)", "the decoded images"),
    (lambda t: t["bundle"].match_classes("gull"), TypeError, "'gull' (str)", "a list of names"),
    (lambda t: t["bundle"].match_classes(3), TypeError, "3 (int)", "a list of names"),
    (lambda t: t["bundle"].squares(3), TypeError, "3 (int)", "a path, the content of a file"),
    (lambda t: t["bundle"].squares("a.jpg", batch_size="x"), TypeError, "'x' (str)", "a whole"),
    (lambda t: t["bundle"].squares("a.jpg", on_error="skip"), TypeError, "'skip'", "a function"),
    (lambda t: list(t["bundle"].squares("no.jpg")), UserError, "no.jpg", "no such file"),
    (
        lambda t: t["bundle"].predict_squares(["a"], "x", top=1),
        TypeError,
        "'x' (str)",
        f"(1, {SIDE}, {SIDE}, 3) uint8",
    ),
    (
        lambda t: t["bundle"].predict_squares(["a"], np.zeros((1, SIDE, SIDE, 3)), top=1),
        ValueError,
        "float64",
        "uint8, one for each name",
    ),
    (
        lambda t: t["bundle"].predict_squares(
            ["a", "b"], np.zeros((1, SIDE, SIDE, 3), np.uint8), top=1
        ),
        ValueError,
        f"found (1, {SIDE}",
        f"(2, {SIDE}, {SIDE}, 3) uint8",
    ),
    (lambda t: gsfl_tune.Results.from_json(3), TypeError, "3 (int)", "what to_json returned"),
    (lambda t: gsfl_tune.adapt(3, "i", "o"), TypeError, "3 (int)", "a path as text or Path"),
    (lambda t: gsfl_tune.adapt(t["bundle_path"], 3, "o"), TypeError, "3 (int)", "a list of paths"),
    (lambda t: gsfl_tune.adapt(t["bundle_path"], "i", 3), TypeError, "3 (int)", "a path as text"),
    (
        lambda t: gsfl_tune.adapt(t["bundle_path"], "i", "o", epochs="5"),
        TypeError,
        "'5' (str)",
        "a whole number",
    ),
    (
        lambda t: gsfl_tune.adapt(t["bundle_path"], "i", "o", learning_rate="x"),
        TypeError,
        "'x' (str)",
        "a number",
    ),
    (
        lambda t: gsfl_tune.adapt(t["bundle_path"], "i", "o", judge=3),
        TypeError,
        "3 (int)",
        "a path as text or Path",
    ),
    (
        lambda t: gsfl_tune.adapt(t["bundle_path"], "i", "o", cache_dir=3),
        TypeError,
        "3 (int)",
        "a path as text or Path",
    ),
    (
        lambda t: gsfl_tune.adapt(t["bundle_path"], "i", "o", notice="print"),
        TypeError,
        "'print' (str)",
        "a function",
    ),
    (
        lambda t: gsfl_tune.adapt(t["bundle_path"], t["empty"], t["empty"] / "o"),
        UserError,
        "no image in this folder",
        "",
    ),
    # Runs
    (lambda t: read_results(3), TypeError, "3 (int)", "a path as text or Path"),
    (lambda t: read_results(t["empty"]), UserError, "not a run directory", "results.json"),
    (lambda t: read_results(t["unfinished"]), UserError, "not finished", "results.json"),
    (lambda t: read_results(t["empty"] / "no"), UserError, "no such file", "a run directory"),
    (lambda t: Run(3), TypeError, "3 (int)", "a path as text or Path"),
    (lambda t: Run(t["empty"]), UserError, "not a run directory", "run.json"),
    (lambda t: Run(t["empty"] / "no"), UserError, "no such run directory", "run.json"),
    (lambda t: Run(t["unfinished"]).bundle(), UserError, "interrupted", "no bundle"),
    (lambda t: Run(t["unfinished"]).plot_best(), UserError, "no trial", "has ended yet"),
    (lambda t: t["run"].epochs("3"), TypeError, "'3' (str)", "a whole number from 0 on"),
    (lambda t: t["run"].epochs(99), UserError, "found no epochs", "trial 99"),
    (lambda t: t["run"].epochs(1, "searches"), ValueError, "'searches'", "'search', 'control'"),
    (lambda t: t["run"].plot_curves("all"), TypeError, "'all' (str)", "numbers of trials"),
    (lambda t: t["run"].plot_curves([99]), UserError, "trial 99", "0 to 11"),
    (lambda t: t["run"].plot_curves(size=7), TypeError, "7 (int)", "width and height"),
    (lambda t: t["run"].plot_curves(size=(7, -1)), ValueError, "(7, -1)", "inches above 0"),
    (lambda t: t["run"].plot_parameter(None), TypeError, "None", "the name of a parameter"),
    (lambda t: t["run"].plot_parameter("drop"), UserError, "'drop'", "model.dropout"),
    (lambda t: t["run"].plot_importance(-1), ValueError, "-1", "a whole number from 0 on"),
    (lambda t: t["run"].plot_importance(5), UserError, "fewer than 10", "from 10 trials on"),
    (lambda t: t["run"].live(0), ValueError, "0", "seconds above 0"),
    (lambda t: t["run"].compare(), UserError, "found 1 run", "two or more"),
    (lambda t: compare_runs("runs/a"), TypeError, "'runs/a' (str)", "a list of run directories"),
    (lambda t: compare_runs([t["run"].path, 3]), TypeError, "3 (int)", "a path"),
    (lambda t: find_runs(3), TypeError, "3 (int)", "a path as text or Path"),
    (lambda t: find_runs(t["empty"] / "no"), UserError, "nothing there", "a folder"),
]


def test_there_are_enough():
    assert len(CALLS) >= 30


@pytest.mark.parametrize("number", range(len(CALLS)))
def test_a_wrong_call_is_told_what_was_found_and_what_is_allowed(there, number):
    act, kind, found, allowed = CALLS[number]
    with pytest.raises(kind) as caught:
        act(there)
    message = str(caught.value)
    assert found in message, message
    assert allowed in message, message
    # Said by this package, not by a library or an attribute that is missing.
    assert "object has no attribute" not in message
    assert "\n" not in message
