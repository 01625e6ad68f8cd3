"""``gsfl-tune evaluate`` on images that the bundle was trained on, and on boxes as it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from gsfl_tune.data import prepare
from gsfl_tune.data.marks import marked_png
from gsfl_tune.experiment.data_config import DataConfig
from gsfl_tune.export import bundle_from_network
from tests.cli.test_evaluate import _cache, folder
from tests.export.conftest import CLASSES, GROUPS, SIDE

__all__ = ["_cache", "folder"]

TOLD = "the bundle was trained on some of these images"
ARGUMENTS = {"classes": CLASSES, "groups": GROUPS, "side": SIDE, "metrics": {}}


@pytest.fixture
def trained(tmp_path, network, config, folder) -> Path:
    """The bundle of a run with its own seed of the split."""
    data = DataConfig(source="folder", path=str(folder), split={"seed": 1})
    dataset = prepare(data, side=SIDE, cache_dir=tmp_path / "cache")
    seen = dataset.trained_on(validation=True)
    return bundle_from_network(tmp_path / "trained", network, config, trained_on=seen, **ARGUMENTS)


def notices(answer) -> list[str]:
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)["notices"]
    assert [line for line in found if TOLD in line] == [
        line for line in answer.err.splitlines() if TOLD in line
    ]
    return [line for line in found if TOLD in line]


def test_another_split_of_the_images_of_the_run(command, trained, folder, tmp_path):
    file = tmp_path / "zoo.yaml"
    file.write_text(f"name: zoo\ndata:\n  source: folder\n  path: '{folder}'\n")
    assert len(notices(command("evaluate", trained, file, "--json"))) == 1
    same = command("evaluate", trained, file, "--set", "data.split.seed=1", "--json")
    assert notices(same) == []


def test_the_folder_that_was_searched(command, trained, bundle_path, folder, tmp_path):
    assert len(notices(command("evaluate", trained, folder, "--json"))) == 1
    # A bundle of an earlier version does not say what it has seen.
    assert notices(command("evaluate", bundle_path, folder, "--json")) == []
    others = shutil.copytree(folder, tmp_path / "others")
    for file in others.rglob("*.png"):
        with Image.open(file) as image:
            image.rotate(90, expand=True).save(file)
    assert notices(command("evaluate", trained, others, "--json")) == []


def test_the_test_part_of_the_images_of_the_run(command, network, config, folder, tmp_path):
    parts = tmp_path / "parts"
    for file in sorted(folder.rglob("*.png")):
        part = "test" if file.stem in "012" else "train"
        (parts / part / file.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, parts / part / file.parent.name)
    data = DataConfig(source="folder", path=str(parts))
    seen = prepare(data, side=SIDE, cache_dir=tmp_path / "cache").trained_on(validation=True)
    path = tmp_path / "trained"
    bundle_from_network(path, network, config, trained_on=seen, **ARGUMENTS)
    assert notices(command("evaluate", path, parts, "--json")) == []


def test_a_folder_with_images_that_were_left_out(command, network, config, folder, tmp_path):
    """Synthetic images of a folder are in no part; it is the folder of the run all the same."""
    for file in (folder / "ant").glob("[12].png"):
        with Image.open(file) as image:
            file.write_bytes(marked_png(image, {}))
    data = DataConfig(source="folder", path=str(folder))
    seen = prepare(data, side=SIDE, cache_dir=tmp_path / "cache").trained_on(validation=True)
    path = tmp_path / "trained"
    bundle_from_network(path, network, config, trained_on=seen, **ARGUMENTS)
    assert len(notices(command("evaluate", path, folder, "--json"))) == 1
    # A bundle of an earlier version does not say how many images it has seen.
    del seen["count"]
    path = tmp_path / "earlier"
    bundle_from_network(path, network, config, trained_on=seen, **ARGUMENTS)
    assert len(notices(command("evaluate", path, folder, "--json"))) == 1


@pytest.fixture
def halves(tmp_path, folder) -> Path:
    """A table of photographs of two things side by side, each in a box, with a test part."""
    lines = ["file_name,split,label,x,y,width,height"]
    place = tmp_path / "halves"
    place.mkdir()
    for number in range(10):
        part = "test" if number < 5 else "train"
        photograph = Image.new("RGB", (80, 50))
        for left, name in ((0, "ant"), (40, "bee")):
            with Image.open(folder / name / f"{number}.png") as image:
                photograph.paste(image, (left, 0))
            lines.append(f"{number}.png,{part},{name},{left},0,40,50")
        photograph.save(place / f"{number}.png")
    (place / "boxes.csv").write_text("\n".join(lines))
    return place / "boxes.csv"


@pytest.fixture
def boxed(tmp_path, network, config) -> Path:
    data = config.data.model_copy(update={"crop": "box", "crop_margin": 0.0})
    own = config.model_copy(update={"data": data})
    return bundle_from_network(tmp_path / "boxed", network, own, **ARGUMENTS)


@pytest.mark.parametrize("crop", ["", ", crop: box, crop_margin: 0.3"])
def test_an_experiment_is_scored_on_boxes_as_the_bundle_was_trained(
    command, boxed, halves, tmp_path, crop
):
    """Whatever the file says of boxes: the run may have been started with other words."""
    file = tmp_path / "zoo.yaml"
    file.write_text(f"name: zoo\ndata: {{source: csv, path: '{halves}'{crop}}}\n")
    answer = command("evaluate", boxed, file, "--json")
    assert answer.code == 0, answer.err
    assert "trained on boxes" not in answer.err
    content = json.loads(answer.out)
    expected = json.loads(command("evaluate", boxed, halves, "--json").out)
    assert content["images"] == expected["images"] == 10
    assert content["metrics"] == pytest.approx(expected["metrics"])


def test_an_experiment_without_boxes_is_scored_whole_and_that_is_said(
    command, bundle_path, boxed, folder, tmp_path
):
    file = tmp_path / "zoo.yaml"
    file.write_text(f"name: zoo\ndata: {{source: folder, path: '{folder}'}}\n")
    answer = command("evaluate", boxed, file, "--json")
    assert answer.code == 0, answer.err
    assert "trained on boxes cut out of images; these have none" in answer.err
    expected = json.loads(command("evaluate", bundle_path, file, "--json").out)
    assert json.loads(answer.out)["metrics"] == expected["metrics"]


def test_places_that_cannot_be_written_are_refused_before_the_work(
    command, bundle_path, folder, tmp_path
):
    (tmp_path / "file").touch()
    for option, name in (("--html", "page.html"), ("--csv", "tables")):
        answer = command("evaluate", bundle_path, folder, option, tmp_path / "file" / name)
        assert (answer.code, answer.out) == (2, "")
        assert f"{option} {tmp_path / 'file' / name}: {tmp_path / 'file'} is a file" in answer.err
