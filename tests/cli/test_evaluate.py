"""``gsfl-tune evaluate``."""

from __future__ import annotations

import copy
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix, f1_score, precision_score, recall_score

from gsfl_tune.export import bundle_from_network, load_bundle
from gsfl_tune.run.results import Calibration, Rejection, Score
from tests.export.conftest import CLASSES, GROUPS, SIDE


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GSFL_TUNE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path) -> Path:
    """Ten images of each class but the last, without split folders."""
    generator = np.random.default_rng(1)
    for name in CLASSES[:-1]:
        place = tmp_path / "some images" / name
        place.mkdir(parents=True)
        for number in range(10):
            pixels = generator.integers(0, 256, size=(5, 4, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((40, 50)).save(place / f"{number}.png")
    return tmp_path / "some images"


def accuracy(bundle_path, paths) -> float:
    predictions = load_bundle(bundle_path).predict(paths, top=1)
    return float(np.mean([each.classes[0] == Path(each.path).parent.name for each in predictions]))


def test_a_folder_in_a_process(process, bundle_path, folder):
    answer = process("evaluate", bundle_path, folder, "--json")
    assert (answer.code, answer.err) == (0, "")
    content = json.loads(answer.out)
    assert (content["part"], content["images"], content["classes"]) == ("all", 50, 5)
    expected = accuracy(bundle_path, sorted(folder.rglob("*.png")))
    assert content["metrics"]["accuracy"] == pytest.approx(expected)


def test_a_class_that_takes_the_errors_is_named(command, tmp_path, network, config, folder):
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.head.classifier.bias[2] += 1000
    path = bundle_from_network(
        tmp_path / "one class", other, config, classes=CLASSES, groups=GROUPS, side=SIDE, metrics={}
    )
    notices = json.loads(command("evaluate", path, folder, "--json").out)["notices"]
    (told,) = [line for line in notices if "wrong answers" in line]
    assert told.startswith(
        f"100 % of the wrong answers name one class, {CLASSES[2]}, for images of 4 other classes."
    )


def test_a_bundle_of_boxes_is_evaluated_on_boxes(
    command, tmp_path, network, config, folder, bundle_path
):
    """Photographs of two things side by side give what the halves in class folders give."""
    halves = tmp_path / "halves"
    lines = ["file_name,label,x,y,width,height"]
    for number in range(10):
        photograph = Image.new("RGB", (80, 50))
        for place, name in enumerate(("ant", "bee")):
            with Image.open(folder / name / f"{number}.png") as image:
                photograph.paste(image, (40 * place, 0))
            lines.append(f"{number}.png,{name},{40 * place},0,40,50")
        halves.mkdir(exist_ok=True)
        photograph.save(halves / f"{number}.png")
    (halves / "boxes.csv").write_text("\n".join(lines))
    boxed = config.model_copy(
        update={"data": config.data.model_copy(update={"crop": "box", "crop_margin": 0.0})}
    )
    arguments = {"classes": CLASSES, "groups": GROUPS, "side": SIDE, "metrics": {}}
    bundle_from_network(tmp_path / "boxed", network, boxed, **arguments)
    for name in CLASSES[2:-1]:
        shutil.rmtree(folder / name)
    expected = json.loads(command("evaluate", bundle_path, folder, "--json").out)
    for path in (halves, halves / "boxes.csv"):
        content = json.loads(command("evaluate", tmp_path / "boxed", path, "--json").out)
        assert content["images"] == expected["images"] == 20
        assert content["metrics"] == pytest.approx(expected["metrics"])


def test_text_says_which_images(command, bundle_path, folder):
    answer = command("evaluate", bundle_path, folder)
    assert answer.code == 0
    assert answer.out.startswith("50 images of 5 classes: all images")
    assert "balanced accuracy" in answer.out


def test_parquet_gives_what_the_folder_gives(command, bundle_path, folder, tmp_path):
    files = sorted(folder.rglob("*.png"), reverse=True)
    table = pa.table(
        {
            "image": [{"bytes": file.read_bytes(), "path": file.name} for file in files],
            "label": [file.parent.name for file in files],
        }
    )
    pq.write_table(table, tmp_path / "test-0.parquet")
    found = json.loads(command("evaluate", bundle_path, tmp_path / "test-0.parquet", "--json").out)
    assert (found["part"], found["images"]) == ("test", 50)
    expected = json.loads(command("evaluate", bundle_path, folder, "--json").out)["metrics"]
    assert found["metrics"] == pytest.approx(expected, abs=1e-6)


def rows(
    folder, tmp_path, name: str, labels: dict[str, str | None], *, turned: bool = False
) -> Path:
    """A Parquet file of the images of some class folders, with the labels given for them."""
    images, named = [], []
    for file in sorted(folder.rglob("*.png")):
        if file.parent.name in labels:
            image = Image.open(file)
            stream = io.BytesIO()
            (image.rotate(90, expand=True) if turned else image).save(stream, "PNG")
            images.append({"bytes": stream.getvalue(), "path": file.name})
            named.append(labels[file.parent.name])
    (tmp_path / "files").mkdir(exist_ok=True)
    pq.write_table(pa.table({"image": images, "label": named}), tmp_path / "files" / name)
    return tmp_path / "files" / name


def test_images_without_a_label_are_counted_of_all(command, bundle_path, folder, tmp_path):
    labels = {"ant": "ant", "bee": "bee", CLASSES[2]: None}
    file = rows(folder, tmp_path, "test.parquet", labels)
    answer = command("evaluate", bundle_path, file, "--json")
    assert answer.code == 0, answer.err
    content = json.loads(answer.out)
    assert (content["images"], content["unlabelled"], content["part"]) == (20, 10, "test")
    told = "10 of 30 images have no label and are not scored"
    assert told in content["notices"]
    assert "left out: 10 rows: without a label (test part) 10" in content["notices"]
    assert told in answer.err
    assert "left out: 10 rows" in answer.err
    text = command("evaluate", bundle_path, file).out
    assert text.startswith("20 images of 2 classes: the test part of the data (10 more have no")
    # So says an experiment with the same test part.
    rows(folder, tmp_path, "train.parquet", {"ant": "ant", "bee": "bee"}, turned=True)
    experiment = tmp_path / "zoo.yaml"
    experiment.write_text(
        f"name: zoo\ndata: {{source: parquet, path: '{file.parent}', fit: pad}}\n"
    )
    answer = command("evaluate", bundle_path, experiment, "--json")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["unlabelled"] == 10
    assert told in answer.err


def test_training_images_never_stand_in_for_a_test_part(command, bundle_path, folder, tmp_path):
    """The files of a competition: its test images have no labels."""
    train = rows(folder, tmp_path, "train.parquet", {"ant": "ant", "bee": "bee"})
    test = rows(folder, tmp_path, "test.parquet", {CLASSES[2]: None, CLASSES[3]: None})
    answer = command("evaluate", bundle_path, train.parent)
    assert (answer.code, answer.out) == (2, "")
    assert "none of 20 images of the test part has a label" in answer.err
    answer = command("evaluate", bundle_path, test)
    assert (answer.code, "none of 20 images has a label" in answer.err) == (2, True)
    answer = command("evaluate", bundle_path, train, "--json")
    assert (answer.code, json.loads(answer.out)["part"]) == (0, "all")
    assert "images of a training part are scored" in answer.err
    lines = [
        f"{file},{'train' if file.parent.name == 'ant' else 'test'},"
        for file in folder.rglob("*.png")
    ]
    lines = [line + ("ant" if ",train," in line else "") for line in lines]
    (tmp_path / "split.csv").write_text("\n".join(["file_name,split,label", *lines]))
    answer = command("evaluate", bundle_path, tmp_path / "split.csv")
    assert answer.code == 2
    assert "none of 40 images of the test part has a label" in answer.err


def test_what_is_left_out_is_counted(command, bundle_path, folder):
    (folder / "ant" / "notes.txt").touch()
    (folder / "ant" / "@eaDir").mkdir()
    (folder / "ant" / "@eaDir" / "thumb.png").write_bytes(b"")
    answer = command("evaluate", bundle_path, folder, "--json")
    (told,) = [line for line in json.loads(answer.out)["notices"] if line.startswith("left out: ")]
    assert "2 files" in told
    assert ".txt 1" in told
    assert "in @eaDir/ 1" in told
    assert told in answer.err


def test_rows_that_cannot_be_scored_are_named(command, bundle_path, folder):
    """One row has a field too many, one names two files, and one an address."""
    (folder / "bee" / "1.jpg").write_bytes((folder / "bee" / "1.png").read_bytes())
    rows = ["ant/0.png,ant", "bee/0.png,bee,really", "bee/1,bee", "https://host/2.png,bee"]
    table = folder / "rows.csv"
    table.write_text("\n".join(["file,label", *rows]))
    answer = command("evaluate", bundle_path, table, "--json")
    content = json.loads(answer.out)
    assert (answer.code, content["images"]) == (0, 1)
    for said in ("number of fields", "several files are called 1", "found the address"):
        assert said in answer.err
        assert any(said in notice for notice in content["notices"])


def test_an_experiment_means_its_test_split(command, bundle_path, folder, tmp_path):
    file = tmp_path / "zoo.yaml"
    file.write_text(
        f"name: zoo\ndata:\n  source: folder\n  path: '{folder}'\n  fit: pad\n"
        "  split: {validation: 0.25, test: 0.2, seed: 0}\n"
    )
    answer = command("evaluate", bundle_path, file, "--json")
    content = json.loads(answer.out)
    assert (content["part"], content["images"]) == ("test", 10)


def test_an_experiment_takes_overrides_and_a_path_does_not(command, bundle_path, folder, tmp_path):
    file = tmp_path / "zoo.yaml"
    file.write_text(f"name: zoo\ndata:\n  source: folder\n  path: '{folder}'\n")
    answer = command("evaluate", bundle_path, file, "--set", "data.split.test=0.4", "--json")
    assert json.loads(answer.out)["images"] == 20
    refused = command("evaluate", bundle_path, folder, "--set", "data.split.test=0.4")
    assert refused.code == 2
    assert "--set" in refused.err
    # The bundle knows nothing of files that are cut off.
    (folder / "ant" / "0.png").write_bytes((folder / "ant" / "0.png").read_bytes()[:-30])
    assert "data.truncated: accept" in command("evaluate", bundle_path, file).err
    answer = command("evaluate", bundle_path, file, "--set", "data.truncated=accept", "--json")
    assert (answer.code, json.loads(answer.out)["broken"]) == (0, 0)


def test_a_broken_image_is_named_on_stderr(command, bundle_path, folder):
    (folder / "ant" / "0.png").write_bytes(b"nothing")
    answer = command("evaluate", bundle_path, folder, "--json")
    assert answer.code == 0
    assert json.loads(answer.out)["broken"] == 1
    assert "0.png: left out" in answer.err


def test_unknown_classes_and_missing_data_are_bad_input(command, bundle_path, folder, tmp_path):
    (folder / "ant").rename(folder / "yak")
    answer = command("evaluate", bundle_path, folder)
    assert (answer.code, answer.out) == (2, "")
    assert "1 of 5 classes are unknown to the bundle: yak" in answer.err
    assert "10 of 50 images (20.0%) could not be right" in answer.err
    assert command("evaluate", bundle_path, tmp_path / "nothing").code == 2
    assert command("evaluate", bundle_path, tmp_path / "nothing.yaml").code == 2


def recounted(bundle_path, folder) -> tuple[list[Path], list[str], list[str], list[float]]:
    """Images, their classes, what the bundle says, and how sure it is, by another way."""
    paths = sorted(folder.rglob("*.png"))
    predictions = load_bundle(bundle_path).predict(paths, top=1)
    truth = [path.parent.name for path in paths]
    guesses = [each.classes[0] for each in predictions]
    return paths, truth, guesses, [each.probabilities[0] for each in predictions]


def test_classes_confusions_and_wrong_images_are_those_of_the_predictions(
    command, bundle_path, folder
):
    content = json.loads(command("evaluate", bundle_path, folder, "--json").out)
    paths, truth, guesses, confidence = recounted(bundle_path, folder)
    names = sorted(set(truth) | set(guesses))
    recall, precision = (
        function(truth, guesses, labels=names, average=None, zero_division=0)
        for function in (recall_score, precision_score)
    )
    f1 = f1_score(truth, guesses, labels=names, average=None, zero_division=0)
    assert [row["name"] for row in content["per_class"]] == names
    assert content["confusion"]["classes"] == names
    assert content["confusion"]["matrix"] == confusion_matrix(truth, guesses, labels=names).tolist()
    for row, name, r, p, f in zip(content["per_class"], names, recall, precision, f1, strict=True):
        assert row["count"] == truth.count(name)
        assert row["recall"] == (pytest.approx(r) if truth.count(name) else None)
        assert row["precision"] == (pytest.approx(p) if guesses.count(name) else None)
        assert row["f1"] == pytest.approx(f)
    wrong = {
        str(path): (label, guess, sure)
        for path, label, guess, sure in zip(paths, truth, guesses, confidence, strict=True)
        if label != guess
    }
    assert wrong
    assert {each["path"] for each in content["wrong_images"]} == wrong.keys()
    for each in content["wrong_images"]:
        assert (each["label"], each["predicted"]) == wrong[each["path"]][:2]
        assert each["confidence"] == pytest.approx(wrong[each["path"]][2], abs=1e-6)
        assert each["probability"] <= each["confidence"]
    sure = [each["confidence"] for each in content["wrong_images"]]
    assert sure == sorted(sure, reverse=True)
    confusions = [sum(pair["counts"]) for pair in content["most_confused"]]
    assert sum(confusions) == len(wrong)
    assert confusions == sorted(confusions, reverse=True)


def test_tables_say_what_json_says(command, bundle_path, folder, tmp_path):
    answer = command("evaluate", bundle_path, folder, "--csv", tmp_path / "deep" / "tables")
    assert answer.code == 0, answer.err
    content = json.loads(command("evaluate", bundle_path, folder, "--json").out)
    tables = {
        name: pd.read_csv(tmp_path / "deep" / "tables" / f"{name}.csv")
        for name in ("classes", "confusion", "images")
    }
    assert all(f"{name}.csv" in answer.out for name in tables)
    assert tables["classes"]["class"].tolist() == content["confusion"]["classes"]
    assert tables["classes"]["images"].tolist() == [row["count"] for row in content["per_class"]]
    found = tables["confusion"].set_index("class")
    assert found.columns.tolist() == content["confusion"]["classes"]
    assert found.to_numpy().tolist() == content["confusion"]["matrix"]
    images = tables["images"]
    assert len(images) == 50
    assert (~images["right"]).sum() == len(content["wrong_images"])
    assert (images["right"] == (images["class"] == images["predicted"])).all()
    assert images["right"].mean() == pytest.approx(content["metrics"]["accuracy"])


def test_the_text_names_the_worst_classes_and_pairs(command, bundle_path, folder):
    content = json.loads(command("evaluate", bundle_path, folder, "--json").out)
    lines = command("evaluate", bundle_path, folder).out.splitlines()
    assert f"{len(content['wrong_images'])} wrong; classes of the lowest recall" in lines
    worst = min(content["per_class"], key=lambda row: (row["recall"] is None, row["recall"]))
    at = next(number for number, line in enumerate(lines) if "lowest recall" in line)
    assert lines[at + 1].split()[0] == f"{100 * worst['recall']:.2f}"
    pair = content["most_confused"][0]
    assert f"  {sum(pair['counts']):>4} times  {' and '.join(pair['classes'])}" in lines


def test_costs_and_the_threshold_of_the_bundle_are_scored(
    command, folder, tmp_path, network, config, bundle_path
):
    lines = [",".join(["true", *CLASSES])]
    lines += [
        ",".join([name, *("0" if name == one else "2" for one in CLASSES)]) for name in CLASSES
    ]
    costs = tmp_path / "costs.csv"
    costs.write_text("\n".join(lines))
    plain = json.loads(command("evaluate", bundle_path, folder, "--json").out)
    assert not {"expected_cost", "auto_coverage"} & plain["metrics"].keys()
    assert plain["notices"][-1].endswith(f"without an image here: {CLASSES[-1]}")
    scores = {"nll": Score.of([0.9]), "ece": Score.of([0.2])}
    paths = sorted(folder.rglob("*.png"))
    sure = [each.probabilities[0] for each in load_bundle(bundle_path).predict(paths)]
    half = Rejection(0.5, float(np.median(sure)), 0.5, 0.1)
    calibration = Calibration(1.0, 9, 1, 4, scores, scores, [half])
    arguments = {"classes": CLASSES, "groups": GROUPS, "side": SIDE, "metrics": {}}
    bundle_from_network(
        tmp_path / "calibrated", network, config, calibration=calibration, **arguments
    )
    answer = command("evaluate", tmp_path / "calibrated", folder, "--cost-matrix", costs, "--json")
    metrics = json.loads(answer.out)["metrics"]
    assert metrics["expected_cost"] == pytest.approx(2 - 2 * metrics["accuracy"])
    bundle = load_bundle(tmp_path / "calibrated")
    kept = bundle.predict(paths, threshold="auto")
    answered = [each for each in kept if not each.unknown]
    right = [each.classes[0] == Path(each.path).parent.name for each in answered]
    assert 0 < len(answered) < 50
    assert metrics["auto_coverage"] == pytest.approx(len(answered) / 50)
    assert metrics["auto_accuracy"] == pytest.approx(np.mean(right))
    costs.write_text("true,ant\nant,0")
    refused = command("evaluate", bundle_path, folder, "--cost-matrix", costs)
    assert (refused.code, f"{costs}:1: no column for 'bee'" in refused.err) == (2, True)


def test_the_page_is_whole_and_escapes_names(command, bundle_path, folder, tmp_path):
    evil = folder / "ant" / "<img src=x onerror=alert(1)>.png"
    (folder / "ant" / "0.png").rename(evil)
    answer = command("evaluate", bundle_path, folder, "--html", tmp_path / "out" / "page.html")
    assert answer.code == 0, answer.err
    page = (tmp_path / "out" / "page.html").read_text()
    assert f"wrote {tmp_path / 'out' / 'page.html'}" in answer.out
    assert "<img src=x" not in page
    content = json.loads(command("evaluate", bundle_path, folder, "--json").out)
    assert page.count("data:image/jpeg;base64,") == len(content["wrong_images"])
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    refused = command("evaluate", bundle_path, folder, "--html", tmp_path / "out")
    assert (refused.code, "is a directory" in refused.err) == (2, True)
    refused = command("evaluate", bundle_path, folder, "--csv", tmp_path / "out" / "page.html")
    assert (refused.code, "is a file" in refused.err) == (2, True)


def test_without_an_error_there_is_nothing_wrong(command, bundle_path, folder, tmp_path):
    paths, truth, guesses, _ = recounted(bundle_path, folder)
    for path, label, guess in zip(paths, truth, guesses, strict=True):
        if label != guess:
            path.unlink()
    page = tmp_path / "page.html"
    answer = command("evaluate", bundle_path, folder, "--html", page, "--json")
    content = json.loads(answer.out)
    assert content["metrics"]["accuracy"] == 1
    assert content["wrong_images"] == content["most_confused"] == []
    assert "No image was confused with another class." in page.read_text()
