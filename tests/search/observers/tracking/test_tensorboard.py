"""What TensorBoard itself says of a run: the program, asked as its pages ask it."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from gsfl_tune.run import EpochLog, RunDirectory, write_json, write_text
from gsfl_tune.search import open_study
from gsfl_tune.search.observers.tracking import TensorBoard, write_tensorboard
from gsfl_tune.search.study.journal import read_studies
from tests.search.experiments import experiment
from tests.search.observers.tracking.conftest import TRIALS, Followed
from tests.waiting import listens, wait_until


@contextmanager
def _program(module: str, *arguments: object) -> Iterator[str]:
    """A program with a web page, at a free port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [sys.executable, "-m", module, *map(str, arguments), "--port", str(port)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        wait_until(lambda: listens(port), f"{module} listens", timeout=300, process=process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate()


def _ask(url: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def _until_loaded(url: str, runs: int) -> dict[str, Any]:
    """Its data is read by a thread of its own."""

    def tags() -> dict[str, Any] | None:
        found: dict[str, Any] = _ask(f"{url}/data/plugin/scalars/tags")
        return found if sum("validation/nll" in each for each in found.values()) >= runs else None

    found = wait_until(tags, f"{runs} runs are loaded", timeout=300, every=0.1)
    assert found is not None
    return found


@pytest.mark.slow
def test_every_trial_has_scalars_parameters_and_a_picture(followed: Followed) -> None:
    trials = read_studies(followed.run.journal)["search"]
    with _program("tensorboard.main", "--logdir", followed.run.path) as url:
        tags = _until_loaded(url, TRIALS)
        for trial in trials:
            name = f"trials/{trial.number}"
            epochs = EpochLog(followed.run.trial("search", trial.number) / "epochs.jsonl").read()
            assert {"train/loss", "validation/nll", "final/validation/nll"} <= set(tags[name])
            points = _ask(f"{url}/data/plugin/scalars/scalars?run={name}&tag=validation%2Fnll")
            assert [step for _, step, _ in points] == [epoch["epoch"] for epoch in epochs]
        pictures = _ask(f"{url}/data/plugin/images/tags")
        shown = [name for name in pictures if "validation/confusion" in pictures[name]]
        assert sorted(shown) == sorted(f"trials/{number}" for number in range(TRIALS))
        table = _ask(f"{url}/data/plugin/hparams/experiment", {"experimentName": ""})
        columns = {info["name"] for info in table["hparamInfos"]}
        assert columns == {
            "model.head", "model.latent_dim", "model.dropout", "model.groups.count",
            "training.head.learning_rate",
        }  # fmt: skip
        wanted = {
            "experimentName": "", "startIndex": 0, "sliceSize": 100,
            "allowedStatuses": ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE"],
            "colParams": [],
        }  # fmt: skip
        rows = _ask(f"{url}/data/plugin/hparams/session_groups", wanted)["sessionGroups"]
        found = {row["sessions"][0]["name"]: row["hparams"] for row in rows}
    for trial in trials:
        row = found[f"trials/{trial.number}"]
        assert row["training.head.learning_rate"] == pytest.approx(
            trial.params["training.head.learning_rate"]
        )
        assert row["model.head"] == trial.params["model.head"]
    # A parameter that was not active in the first trial is a column all the same.
    assert any("model.groups.count" in row for row in found.values())


def test_what_is_missing_is_written_from_the_other_files(
    followed: Followed, tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = RunDirectory(tmp_path / "copy")
    shutil.copytree(
        followed.run.path, run.path, ignore=shutil.ignore_patterns("events.out.*", "tensorboard")
    )
    Image.new("RGB", (40, 30), "red").save(run.path / "sheet.jpg")
    pictures = [
        {"kind": "group", "file": "sheet.jpg"},
        {"kind": "group", "file": "gone.jpg"},
        {"kind": "group", "file": "../outside.jpg"},
    ]
    confusion = {"order": [1, 0], "matrix": [[3, 1], [0, 4]]}
    write_json(run.evidence_file, {"confusion": confusion, "pictures": pictures})
    folder = write_tensorboard(run)
    assert folder == write_tensorboard(run)
    for trial in read_studies(run.journal)["search"]:
        epochs = EpochLog(run.trial("search", trial.number) / "epochs.jsonl").read()
        events = EventAccumulator(str(folder / "trials" / str(trial.number)))
        events.Reload()
        points = events.Scalars("validation/nll")
        assert [(point.step, point.value) for point in points] == [
            (epoch["epoch"], pytest.approx(epoch["validation/nll"])) for epoch in epochs
        ]
    winner = EventAccumulator(str(folder / "winner"))
    winner.Reload()
    assert winner.Tags()["images"] == ["winner/confusion", "group/0"]
    assert (winner.Images("group/0")[0].width, winner.Images("group/0")[0].height) == (40, 30)
    assert sorted(path.name for path in run.path.iterdir() if path.name.startswith(".")) == []


def test_optuna_dashboard_opens_the_study(run: RunDirectory) -> None:
    study = open_study(experiment(), run)
    for _ in range(4):
        study.ask()
    study.complete(0, 2.5, 0)
    study.prune(1, 3.5, 0)
    study.fail(2, "out of memory")
    with _program("optuna_dashboard._cli", run.journal) as url:
        (summary,) = _ask(f"{url}/api/studies")["study_summaries"]
        assert summary["study_name"] == "search"
        found = _ask(f"{url}/api/studies/{summary['study_id']}?after=0")["trials"]
    states = {trial["number"]: trial["state"].upper() for trial in found}
    assert states == {0: "COMPLETE", 1: "PRUNED", 2: "FAIL", 3: "RUNNING"}


def _columns(folder: Path) -> set[str]:
    """The columns of the table, which TensorBoard reads from the one file there."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.metadata import parse_experiment_plugin_data

    (file,) = folder.glob("events.out.tfevents.*")
    events = EventAccumulator(str(file))
    events.Reload()
    content = events.SummaryMetadata("_hparams_/experiment").plugin_data.content
    return {info.name for info in parse_experiment_plugin_data(content).hparam_infos}


def test_a_changed_space_has_its_columns(run: RunDirectory) -> None:
    TensorBoard(run, experiment()).begin(None, None, 1)
    (file,) = run.tensorboard.iterdir()
    TensorBoard(run, experiment()).begin(None, None, 1)
    assert list(run.tensorboard.iterdir()) == [file]
    assert "loss.label_smoothing" not in _columns(run.tensorboard)
    other = experiment("loss.label_smoothing={float: [0, 0.2]}", "model.dropout=0.1")
    TensorBoard(run, other).begin(None, None, 1)
    assert "loss.label_smoothing" in _columns(run.tensorboard)
    assert "model.dropout" not in _columns(run.tensorboard)


def test_the_value_of_a_trial_is_that_of_all_its_trainings(run: RunDirectory) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    # The images are not there any more.
    text = experiment().to_yaml()
    moved = text.replace("source: typefaces", "source: folder\n  path: /nowhere/photos")
    assert moved != text
    write_text(run.experiment_file, moved)
    study = open_study(experiment(), run)
    for number, name in enumerate(("complete", "stopped")):
        study.ask()
        write_text(
            run.trial("search", number) / "epochs.jsonl",
            '{"epoch": 1, "validation/nll": 0.9, "seconds": 0.5}\n',
        )
        study.report(number, 0, 0.9)
        study.report(number, 1, 0.7)
        if name == "complete":
            study.complete(number, 0.7, 1)
        else:
            study.prune(number, 0.7, 1)
    study.close()
    folder = write_tensorboard(run)
    for number in range(2):
        events = EventAccumulator(str(folder / "trials" / str(number)))
        events.Reload()
        (point,) = events.Scalars("final/validation/nll")
        assert point.value == pytest.approx(0.7)
