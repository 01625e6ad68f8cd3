from __future__ import annotations

import json
import os
import shutil
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gsfl_tune.data import prepare
from gsfl_tune.experiment.errors import UserError
from tests.data.conftest import configure, fill
from tests.data.test_near import scene

REAL = os.environ.get("GSFL_TUNE_REAL_DATA")


@pytest.fixture(autouse=True)
def somewhere(tmp_path, monkeypatch):
    """The command writes into the current directory."""
    monkeypatch.setenv("GSFL_TUNE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def folder(tmp_path):
    return fill(tmp_path / "my birds", {"[red] robin": 10, "wren": 8})


def test_a_folder(command, folder, tmp_path):
    answer = command("data", folder)
    assert answer.code == 0, answer.err
    assert "my-birds: 2 classes" in answer.out
    row = next(line for line in answer.out.splitlines() if "[red] robin" in line)
    assert [int(word) for word in row.split() if word.isdigit()] == [6, 2, 2]
    assert "smallest 20 x 16, median 20 x 16, largest 20 x 16" in answer.out
    assert "validation part: chosen by data.split; test part: chosen by data.split" in answer.out
    sheet = tmp_path / "here" / "my-birds-contact-sheet.png"
    assert f"contact sheet: {sheet}" in answer.out
    with Image.open(sheet) as image:
        assert image.format == "PNG"
    assert max(map(len, answer.out.split("contact sheet")[0].splitlines())) <= 80


def test_a_table_beside_class_folders(command, folder):
    """Both readings are named, and either can be chosen on the spot."""
    rows = [f"wren/00{n}.png,{'mf'[n % 2]},0,0,9,9" for n in range(8)]
    (folder / "metadata.csv").write_text("\n".join(["file_name,label,x,y,w,h", *rows]))
    answer = command("data", folder)
    assert answer.code == 2
    assert "csv (metadata.csv), folder (folders such as [red] robin and wren)" in answer.err
    answer = command("data", folder, "--set", "data.source=folder")
    assert answer.code == 0, answer.err
    assert "wren" in answer.out
    settings = ("--set", "data.source=csv", "--set", "data.crop=box")
    answer = command("data", folder, *settings, "--set", "data.crop_margin=0")
    assert answer.code == 0, answer.err
    assert "smallest 9 x 9, median 9 x 9, largest 9 x 9" in answer.out
    assert command("data", folder / "metadata.csv").code == 0
    answer = command("data", folder, "--set", "data.source=folder", "--set", "data.crop=box")
    assert answer.code == 2
    assert "data.crop: found box" in answer.err


def test_findings_are_listed_by_path(command, folder):
    broken = folder / "wren" / "broken.jpg"
    broken.write_bytes(b"nothing")
    shutil.copy(folder / "wren" / "000.png", folder / "wren" / "copy.png")
    answer = command("data", folder, "--sheet", "sheets/a.png")
    assert answer.code == 2
    assert "broken images: 1" in answer.out
    assert f"{broken}: not an image that Pillow can read" in answer.out
    assert "byte-identical images: 1" in answer.out
    assert f"{folder / 'wren' / '000.png'} = {folder / 'wren' / 'copy.png'}" in answer.out
    assert "data.max_broken (1.00%)" in answer.out
    answer = command("data", folder, "--sheet", "sheets/a.png", "--set", "data.max_broken=0.2")
    assert answer.code == 0
    with Image.open("sheets/a.png") as image:
        assert image.width > 96


def test_the_limit_of_broken_images_is_that_of_a_search(command, tmp_path):
    """It is tested before the test part is decoded, and copies that are left out count."""
    limit = "data.max_broken=0.02"
    root = fill(
        tmp_path / "a", {f"{part}/{name}": 30 for part in ("train", "test") for name in "xy"}
    )
    for number in range(2):
        (root / "train" / "x" / f"{number:03d}.png").write_bytes(b"nothing")
    answer = command("data", root, "--set", limit)
    assert answer.code == 2
    assert "2 of 60 images are broken, more than data.max_broken (2.00%) allows" in answer.out
    with pytest.raises(UserError, match="2 of 60 images are broken"):
        prepare(configure("folder", root, max_broken=0.02))
    root = fill(tmp_path / "b", {"train/x": 20, "train/y": 20, "test/x": 2, "test/y": 2})
    for name in "xy":
        (root / "val" / name).mkdir(parents=True)
        for number in range(8):
            file = root / "train" / name / f"{number:03d}.png"
            shutil.copy(file, root / "val" / name / file.name)
    (root / "train" / "x" / "019.png").write_bytes(b"nothing")
    answer = command("data", root, "--set", limit, "--json")
    found = json.loads(answer.out)
    assert (answer.code, found["refused"], len(found["broken"])) == (0, False, 1)
    assert len(prepare(configure("folder", root, max_broken=0.02)).broken) == 1
    refused = command("data", root, "--set", "data.max_broken=0.01")
    assert "1 of 56 images are broken" in refused.out


def test_an_experiment_and_overrides(command, tmp_path):
    (tmp_path / "small.yaml").write_text(
        "name: small\n"
        "data: {source: typefaces, image_size: 32, typefaces: {train: 3, test: 1, size: 32}}\n"
    )
    answer = command("data", tmp_path / "small.yaml", "--set", "data.typefaces.train=4")
    assert answer.code == 0, answer.err
    assert "small: 21 classes" in answer.out
    total = next(line for line in answer.out.splitlines() if "│ all" in line)
    assert [int(word) for word in total.split() if word.isdigit()] == [63, 21, 21]
    assert "Computer Modern" in answer.out
    assert "decoded to 37 x 37" in answer.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "does not exist"),
        (["x.yaml"], "x.yaml"),
        (["empty"], "no class folders"),
        (["../my birds", "--set", "data.fit=stretch"], "data.fit"),
        (["../my birds", "--set", "data.nope=1"], "data.nope"),
    ],
)
def test_bad_input(command, folder, arguments, message):
    (folder.parent / "here" / "empty").mkdir()
    answer = command("data", *arguments)
    assert answer.code == 2
    assert message in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.skipif(not REAL, reason="GSFL_TUNE_REAL_DATA is not set")
def test_a_published_validation_part_may_lack_classes(command):
    """Grocery as published: 21 of its 81 classes have no validation image."""
    settings = ("data.label_column=label", "data.image_size=32")
    words = [word for text in settings for word in ("--set", text)]
    answer = command("data", f"{REAL}/grocery/[tv]*.parquet", "--json", *words)
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert found["counts"] == {"train": 2640, "validation": 296, "test": 2485}
    told = "the given validation part has no image of 21 of 81 classes and says nothing of them"
    assert any(line.startswith(told) for line in found["notices"])


def test_a_path_with_brackets_is_a_path(command, folder, tmp_path):
    images = [
        {"bytes": file.read_bytes(), "path": file.name} for file in sorted(folder.rglob("*.png"))
    ]
    (tmp_path / "birds [2024]").mkdir()
    file = tmp_path / "birds [2024]" / "a [1].parquet"
    pq.write_table(pa.table({"image": images, "label": ["robin"] * 10 + ["wren"] * 8}), file)
    for path in (file.parent, file):
        answer = command("data", path, "--json")
        assert answer.code == 0, answer.err
        assert json.loads(answer.out)["classes"] == ["robin", "wren"]


def test_shards_by_braces(command, tmp_path):
    """Labels are read out of the shards; the path is typed as webdataset users type it."""
    for number in range(2):
        images = fill(tmp_path / f"images{number}", {"x": 10}, seed=100 * number) / "x"
        with tarfile.open(tmp_path / f"train-{number}.tar", "w") as archive:
            for file in sorted(images.iterdir()):
                archive.add(file, file.name)
                file.with_suffix(".cls").write_text(str(int(file.stem) % 2))
                archive.add(file.with_suffix(".cls"), f"{file.stem}.cls")
    sheet = tmp_path / "sheet.png"
    answer = command("data", tmp_path / "train-{0..1}.tar", "--sheet", sheet)
    assert answer.code == 0, answer.err
    assert "2 classes" in answer.out
    assert sheet.is_file()
    answer = command("data", tmp_path / "train-{0..3}.tar")
    assert answer.code == 2
    assert "of which 2 do not exist, such as" in answer.err


def test_json_says_what_the_text_says(command, folder, tmp_path):
    broken = folder / "wren" / "broken.jpg"
    broken.write_bytes(b"nothing")
    (folder / "wren" / "notes.txt").touch()
    shutil.copy(folder / "wren" / "000.png", folder / "wren" / "copy.png")
    answer = command("data", folder, "--json", "--samples", "some")
    assert answer.code == 2
    found = json.loads(answer.out)
    assert (found["name"], found["path"], found["refused"]) == ("my-birds", str(folder), True)
    assert found["classes"] == ["[red] robin", "wren"]
    assert found["class_counts"]["[red] robin"] == {"train": 6, "validation": 2, "test": 2}
    assert sum(found["counts"].values()) == 19
    assert found["sizes"] == {part: [20, 16] for part in ("smallest", "median", "largest")}
    assert (found["side"], found["fit"]) == (258, "crop")
    assert [image["path"] for image in found["broken"]] == [str(broken)]
    assert found["duplicates"]["groups"] == [
        [str(folder / "wren" / "000.png"), str(folder / "wren" / "copy.png")]
    ]
    assert found["duplicates"]["classes"] == [["wren", "wren"]]
    assert found["near_duplicates"] == {"groups": [], "classes": [], "conflicting": []}
    assert any("left out: 1 file: .txt 1" in notice for notice in found["notices"])
    sheet = tmp_path / "here" / "my-birds-contact-sheet.png"
    assert found["contact_sheet"] == {"path": str(sheet), "classes": 2}
    assert sheet.is_file()
    assert len(list((tmp_path / "here" / "some").iterdir())) == 2
    broken.unlink()
    answer = command("data", folder, "--json")
    assert (answer.code, json.loads(answer.out)["refused"]) == (0, False)
    answer = command("data", tmp_path / "nothing", "--json")
    assert (answer.code, answer.out, "does not exist" in answer.err) == (2, "", True)


def test_copies_are_listed_with_both_labels(command, tmp_path):
    """A smaller copy and one byte for byte, each under another label."""
    root = tmp_path / "labelled"
    for label, name in enumerate("ab"):
        (root / name).mkdir(parents=True)
        for number in range(8):
            scene(100 * label + number).save(root / name / f"{number}.png")
    near, same = root / "b" / "near.jpg", root / "a" / "same.png"
    scene(3).resize((72, 72)).save(near, quality=85)
    shutil.copy(root / "b" / "5.png", same)
    # Sets of each kind: the original and its copy.
    pairs = {"near_duplicates": [("a/3.png", "a"), ("b/near.jpg", "b")]}
    pairs["duplicates"] = [("a/same.png", "a"), ("b/5.png", "b")]
    answer = command("data", root)
    assert answer.code == 0, answer.err
    for pair in pairs.values():
        line = " = ".join(f"{root / path} ({name})" for path, name in pair)
        assert f"of them with different labels: 1\n  {line}\n" in answer.out
    found = json.loads(command("data", root, "--json").out)
    for kind, pair in pairs.items():
        assert found[kind]["groups"] == [[str(root / path) for path, _ in pair]]
        assert found[kind]["classes"] == [[name for _, name in pair]]
        assert found[kind]["conflicting"] == found[kind]["groups"]
