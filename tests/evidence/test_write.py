"""Everything that a run shows, of real trainings of every kind."""

from __future__ import annotations

import json
import shutil
import threading

import numpy as np
import pytest
from PIL import Image

from gsfl_tune.activity import current
from gsfl_tune.evidence import Retrained, write_evidence
from gsfl_tune.run import RunDirectory

from .conftest import FINETUNE

SLOW = pytest.mark.slow
KINDS = {
    "finetuned": {"training": {"finetune": FINETUNE, "head": {"epochs": 3}, "ema": 0.5}},
    "bilinear": {"model": {"pooling": "bilinear", "pooling_channels": 6}},
    "plain": {"model": {"head": "plain"}},
    "single": {"model": {"groups": {"count": 1, "method": "single"}}},
}


def write(workspace, path, winner, control=None, notices=None):
    gsfl = winner.config.model.head == "gsfl"
    return write_evidence(
        RunDirectory(path),
        workspace,
        winner,
        control,
        predictions=winner.predictions(),
        groups=workspace.groups(winner.config) if gsfl else None,
        notice=(notices if notices is not None else []).append,
    )


@pytest.fixture(scope="module")
def whole(workspace, retrained, tmp_path_factory):
    """Where the evidence of a head-stage winner was written, and its content."""
    path = tmp_path_factory.mktemp("whole")
    return path, write(workspace, path, retrained(), retrained(model={"head": "plain"}))


# Bilinear pooling goes the same way as the mean, and is fitted once more.
@pytest.mark.parametrize(
    "kind", ["head", *(pytest.param(k, marks=SLOW) if k == "bilinear" else k for k in KINDS)]
)
def test_every_kind_of_winner_has_its_evidence(workspace, retrained, whole, tmp_path, kind):
    winner, control = retrained(**KINDS.get(kind, {})), retrained(model={"head": "plain"})
    notices: list[str] = []
    if kind == "head":
        tmp_path, content = whole
    else:
        content = write(workspace, tmp_path, winner, None if kind == "plain" else control, notices)
    assert notices == []
    assert json.loads((tmp_path / "evidence.json").read_text()) == content
    test = workspace.dataset.test

    matrix = np.array(content["confusion"]["matrix"])
    assert matrix.sum() == 2 * len(test)
    correct = np.mean([each.correct.mean() for each in winner.predictions()])
    assert np.trace(matrix) / matrix.sum() == pytest.approx(correct)
    points = content["map"]["points"]
    assert len(points) == len(test)
    assert points[3]["label"] == test.labels[points[3]["image"]]
    first = winner.predictions()[0].logits.argmax(axis=1)
    assert [each["predicted"] for each in points] == first.tolist()
    wrong = content["wrong_images"]
    assert wrong["count"] == (first != test.labels).sum() == len(wrong["images"])
    beside = content["wrong_nearest"]
    assert len(beside["true"]) == len(beside["predicted"]) == wrong["count"]
    assert (tmp_path / beside["file"]).is_file()

    kinds = {picture["kind"] for picture in content["pictures"]}
    if kind == "plain":
        assert kinds == {"confused", "gradcam", "wrong"}
        assert not {"probes", "swap", "confusion_groups", "gradcam"} & set(content)
        assert "shared" not in points[0]
        return
    assert kinds == {"confused", "gradcam", "group", "wrong"}
    assert "shared" in points[0]
    groups = workspace.groups(winner.config)
    assert np.all(np.diff(groups[content["confusion"]["order"]]) >= 0)
    assert np.sum(content["confusion_groups"]) == matrix.sum()
    assert content["gradcam"]["images"] == len(test)
    assert -1 <= content["gradcam"]["overlap"]["mean"] <= 1
    if kind == "single":
        assert "probes" not in content
        assert any("single group" in note for note in content["notes"])
        assert content["swap"]["group_follows_shared"] is None
        return
    rows = {row["part"]: row for row in content["probes"]["parts"]}
    assert list(rows) == ["f", "s", "d", "d of the control"]
    assert all(0 <= row["groups"]["mean"] <= 1 for row in rows.values())
    assert content["swap"]["pairs"] == 4000
    assert all(0 <= value <= 1 for name, value in content["swap"].items() if name != "pairs")


def test_pictures_are_small_named_and_explained(workspace, whole):
    path, content = whole
    total = 0
    for picture in content["pictures"]:
        file = path / picture["file"]
        assert file.parent.name == "evidence"
        size = file.stat().st_size
        assert size < 60_000
        total += size
        with Image.open(file) as image:
            assert image.format == "JPEG"
        assert picture["title"]
        assert len(picture["caption"]) > 30
        assert set(picture["classes"]) <= set(workspace.dataset.classes)
    assert total < 4_000_000
    cams = [each for each in content["pictures"] if each["kind"] == "gradcam"]
    assert {each["correct"] for each in cams} == {True, False}
    for each in cams:
        assert each["correct"] == (each["label"] == each["predicted"])
        assert workspace.dataset.test.labels[each["image"]] == each["label"]
    sheets = [each for each in content["pictures"] if each["kind"] == "group"]
    assert sorted(name for each in sheets for name in each["classes"]) == sorted(
        workspace.dataset.classes
    )


def test_the_same_models_give_the_same_files(workspace, retrained, whole, tmp_path):
    winner, control = retrained(), retrained(model={"head": "plain"})
    path, one = whole
    stale = tmp_path / "evidence" / "gradcam-99.jpg"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"of an earlier winner")
    other = write(workspace, tmp_path, winner, control)
    assert one == other
    assert not stale.exists()
    for picture in one["pictures"]:
        assert (path / picture["file"]).read_bytes() == (tmp_path / picture["file"]).read_bytes()


def test_a_part_that_fails_loses_itself_and_says_so(workspace, retrained, tmp_path):
    winner = retrained()
    copies = {}
    for seed, directory in winner.directories.items():
        copies[seed] = shutil.copytree(directory, tmp_path / f"seed-{seed}")
        (copies[seed] / "checkpoint.pt").write_bytes(b"not a checkpoint")
    notices: list[str] = []
    broken = Retrained(winner.config, copies)
    content = write(workspace, tmp_path / "run", broken, None, notices)
    assert len(notices) == 1
    assert "checkpoint.pt" in notices[0]
    for part in ("probes", "swap", "shared", "map", "gradcam", "wrong_nearest"):
        assert "checkpoint.pt" in content[part]["error"]
    assert content["calibration"]["ece"] > 0
    assert {each["kind"] for each in content["pictures"]} == {"confused", "group"}
    assert (tmp_path / "run" / "evidence.json").is_file()


def test_a_control_that_is_gone_loses_its_row_alone(workspace, retrained, tmp_path):
    control = retrained(model={"head": "plain"})
    gone = Retrained(control.config, dict.fromkeys((1, 2), tmp_path / "nowhere"))
    content = write(workspace, tmp_path / "run", retrained(), gone)
    assert [row["part"] for row in content["probes"]["parts"]] == ["f", "s", "d"]
    assert any("no probe of the control" in note for note in content["notes"])


def test_what_is_computed_is_said(workspace, retrained, tmp_path):
    """Evidence was silent for minutes: another thread, as a display is one, sees every step."""
    said: list[str] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.0005):
            if step := current():
                said.append(step.text())

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        write(workspace, tmp_path, retrained())
    finally:
        over.set()
        watcher.join()
    heard = "\n".join(said)
    for words in ("features of the retrained models", "the map", "Grad-CAM"):
        assert f"evidence: {words}" in heard
