"""``gsfl-tune evaluate``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gsfl_tune.export import bundle_from_network, load_bundle
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


def test_a_broken_image_is_named_on_stderr(command, bundle_path, folder):
    (folder / "ant" / "0.png").write_bytes(b"nothing")
    answer = command("evaluate", bundle_path, folder, "--json")
    assert answer.code == 0
    assert json.loads(answer.out)["broken"] == 1
    assert "0.png: left out" in answer.err


def test_unknown_classes_and_missing_data_are_bad_input(command, bundle_path, folder, tmp_path):
    (folder / "ant").rename(folder / "yak")
    answer = command("evaluate", bundle_path, folder)
    assert answer.code == 2
    assert "yak" in answer.err
    assert command("evaluate", bundle_path, tmp_path / "nothing").code == 2
    assert command("evaluate", bundle_path, tmp_path / "nothing.yaml").code == 2
