"""What is wrong with images is found, told, and left out where a person says so."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from gsfl_tune.cli import main
from gsfl_tune.data import prepare
from tests.data.conftest import configure
from tests.issues.conftest import EVIL, SIDE


def test_planted_wrong_labels_come_first_with_their_true_class(issues):
    rows = [row for row in issues.rows if row["issue"] == "label"]
    wrong = {
        **issues.planted.wrong,
        issues.planted.copies[1]: "cross",
    }
    first = dict(zip(issues.paths("label"), rows, strict=True))
    assert set(list(first)[: len(wrong)]) == set(wrong)
    for path, true in wrong.items():
        assert first[path]["suggestion"] == true
        assert first[path]["class"] == path.split("/")[0]
        assert f"predicted {true}" in first[path]["reason"]
    # No probability is 0 or 1.
    told = re.compile(
        r"predicted \S+ \((over 99|below 1|\d+) %\); the given class has (below 1|\d+) %"
    )
    assert all(told.fullmatch(row["reason"]) for row in rows)
    assert not any(re.search(r"\b(0|100) %", row["reason"]) for row in rows)
    # Hardly anything else is doubted.
    assert len(rows) <= 2 * len(wrong)


def test_a_smaller_copy_with_another_label_is_the_first_of_the_copies(issues):
    rows = [row for row in issues.rows if row["issue"] == "near_duplicate"]
    pairs = issues.paths("near_duplicate")
    assert set(pairs[:2]) == set(issues.planted.copies)
    assert "looks the same as" in rows[0]["reason"]
    assert rows[0]["suggestion"] == "decide on one class"
    twins = {"stripes/00.png", "stripes/twin.png"}
    assert set(pairs[2:]) == twins
    assert sorted(row["suggestion"] for row in rows[2:]) == ["", "leave out"]
    assert "the same bytes as" in rows[2]["reason"]


@pytest.mark.parametrize("kind", ["dark", "bright", "blurred", "tiny", "aspect_ratio", "broken"])
def test_odd_images_are_found_by_what_is_odd(issues, kind):
    path = issues.planted.odd[kind]
    assert path in issues.paths(kind)
    assert issues.paths(kind)[0] == path
    # Of 90 images, few are odd.
    assert len(issues.paths(kind)) <= 6


def test_noise_among_drawings_is_an_outlier(issues):
    """Only images of another class are as far from their own."""
    elsewhere = {*issues.planted.wrong, issues.planted.copies[1]}
    found = [path for path in issues.paths("outlier") if path not in elsewhere]
    assert found[0] == issues.planted.odd["outlier"]
    assert len(found) <= 8
    (row,) = [row for row in issues.rows if row["issue"] == "outlier" and "noise" in row["path"]]
    assert "from its nearest of cross (1 - cosine); median of the class" in row["reason"]


def test_reasons_say_what_was_measured(issues):
    reasons = {row["issue"]: row["reason"] for row in reversed(issues.rows)}
    assert "24 x 24 pixels, enlarged to 96; the shorter side of most is 96" in reasons["tiny"]
    assert "400 x 96 pixels, 4.2 to 1; most are 1.0 to 1" in reasons["aspect_ratio"]
    assert "95 % of the pixels are below" in reasons["dark"]
    assert reasons["broken"] == "not an image that Pillow can read"


def test_a_class_with_few_images_is_named_without_a_path(issues):
    rows = [row for row in issues.rows if row["issue"] == "few_images"]
    assert [(row["path"], row["class"]) for row in rows] == [("", EVIL.replace("/", "⁄"))]
    assert "fewer than 10" in rows[0]["reason"]
    assert [row["class"] for row in issues.rows if row["issue"] == "imbalance"] == [
        rows[0]["class"]
    ]


def test_the_table_and_the_json_say_the_same(issues):
    assert [
        {key: str(value) for key, value in each.items()} for each in issues.answer["issues"]
    ] == issues.rows
    assert issues.answer["images"] == 3 * 24 + 2 + 2 + 6 + 1 + 5
    assert all(0 <= float(row["score"]) <= 1 for row in issues.rows)
    counts = issues.answer["counts"]
    assert counts["label"] == len(issues.paths("label"))
    assert counts["broken"] == 1
    assert issues.answer["judged_by"] == "tf_efficientnet_lite0 (package)"


def test_sets_are_written_for_the_split(issues, tmp_path):
    """Every set that is listed, with all of its images; `data.split.together` reads them."""
    file = issues.folder / "together.csv"
    assert issues.answer["files"]["together"] == str(file)
    with file.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    kinds = ("near_duplicate", "alike")
    assert [row["path"] for row in rows] == [
        row["path"] for kind in kinds for row in issues.rows if row["issue"] == kind
    ]
    sets: dict[str, set[str]] = {}
    for row in rows:
        path = str(Path(row["path"]).relative_to(issues.planted.folder))
        sets.setdefault(row["set"], set()).add(path)
    assert set(issues.planted.copies) in sets.values()
    assert all(len(paths) > 1 for paths in sets.values())
    split = {"together": str(file), "by": "image"}
    config = configure("folder", issues.planted.folder, split=split, max_broken=0.2)
    told = prepare(config, cache_dir=tmp_path).notices
    assert any(line.startswith("data.split.together: ") for line in told)
    assert not any("match no image" in line for line in told)


def test_what_is_excluded_is_gone_and_no_issue_any_more(issues, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("GSFL_TUNE_CACHE", str(issues.folder.parent / "cache"))
    broken, twin = (
        next(
            row["path"]
            for row in issues.rows
            if row["issue"] == kind and "leave out" in row["suggestion"]
        )
        for kind in ("broken", "near_duplicate")
    )
    (tmp_path / "exclude.txt").write_text(f"# by hand\n{broken}\n{twin}\nnothing.png\n")
    experiment = tmp_path / "shapes.yaml"
    experiment.write_text(
        f"name: shapes\ndata: {{path: {issues.planted.folder}, image_size: {SIDE}, "
        f"exclude: {tmp_path}/exclude.txt}}\n"
    )
    code = main(
        ["data", str(experiment), "--issues", "--no-features", "--out", str(tmp_path / "o")]
    )
    out = capsys.readouterr().out
    assert code == 0
    assert "named by data.exclude 2" in out
    assert "1 of 3 lines of" in out
    assert "Unreadable images: 0" in out
    assert "Copies of the same image: 2" in out
    assert "labels and outliers were not checked (--no-features)" in out
    assert "Labels that may be wrong: 0" in out
    assert main(["check", str(experiment)]) == 0
    assert "named by data.exclude 2" in capsys.readouterr().out


def test_missing_weights_say_what_to_install_and_what_works_without(planted, tmp_path, capsys):
    overrides = ["--set", "model.backbone=resnet18", "--set", f"data.image_size={SIDE}"]
    code = main(["data", str(planted.folder), "--issues", "--out", str(tmp_path), *overrides])
    captured = capsys.readouterr()
    assert code == 2
    assert "no package holds weights of 'resnet18'" in captured.err
    assert "--no-features runs the checks without a backbone" in captured.err
    assert "Traceback" not in captured.err
    assert list(tmp_path.iterdir()) == []
