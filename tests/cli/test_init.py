"""``gsfl-tune init``, and ``gsfl-tune search`` of images."""

from __future__ import annotations

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.starter import Facts, starter_text
from tests.data.conftest import fill, save

SMALL = (
    "model.backbone=test_efficientnet",
    "model.weights=none",
    "model.latent_dim=8",
    "data.image_size=32",
    "data.views=0",
    "data.augment.scale=0.7",
    "training.device=cpu",
    "training.head.epochs=2",
    "training.finetune.epochs=0",
    "search.time_budget=null",
    "search.trials=2",
    "search.finalists=1",
    "search.final_seeds=1",
    "search.control=off",
    "search.resources.gpu=0",
)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """The command writes into the current directory."""
    monkeypatch.setenv("GSFL_TUNE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def folder(tmp_path):
    return fill(tmp_path / "my birds", {"robin": 8, "wren": 8, "owl": 9, "tit": 10})


def test_the_file_is_good_and_says_what_it_was_made_of(command, folder, here):
    (folder / "robin" / "notes.txt").touch()
    answer = command("init", folder)
    assert (answer.code, answer.err) == (0, "")
    assert f"{folder}: 4 classes, 35 images, without parts of their own" in answer.out
    assert "shorter side 16 px (median of 35); image_size 64" in answer.out
    assert "left out: 1 file: .txt 1" in answer.out
    assert answer.out.endswith(
        "wrote my-birds.yaml; next:\n  gsfl-tune check my-birds.yaml\n"
        "  gsfl-tune search my-birds.yaml\n"
    )
    experiment = Experiment.load(here / "my-birds.yaml")
    # One of its backbones: each of them is made for a check.
    first = str(experiment.values("model.backbone")[0])
    checked = command("check", "my-birds.yaml", "--set", f"model.backbone={first}")
    assert checked.code == 0, checked.err
    assert "Data: 4 classes, 35 images" in checked.out
    assert "Warning" not in checked.out
    config = experiment.defaults()
    assert (config.name, config.data.source, config.data.path) == (
        "my-birds",
        "folder",
        str(folder),
    )
    # At most half as many groups as classes.
    assert experiment.bounds("model.groups.count") == (1, 2)
    assert config.search.time_budget == "1h"
    assert "training.finetune.epochs" in experiment.automatic
    assert "set `flip: false` where left and right matter" in (here / "my-birds.yaml").read_text()


@pytest.mark.slow
def test_all_backbones_of_the_file_are_good(command, folder):
    assert command("init", folder).code == 0
    checked = command("check", "my-birds.yaml")
    assert (checked.code, checked.err) == (0, "")
    assert "Warning" not in checked.out


@pytest.mark.parametrize(
    ("size", "expected", "detailed"),
    [
        ((28, 30), 64, False),
        ((150, 400), 160, False),
        ((300, 300), 224, False),
        ((600, 449), 224, True),
    ],
)
def test_the_image_size_follows_the_images(command, tmp_path, size, expected, detailed):
    for name in ("a", "b"):
        for number in range(5):
            file = tmp_path / "sizes" / name / f"{number}.png"
            save(file, number + 10 * (name == "b"), size)
    answer = command("init", tmp_path / "sizes", "-o", "deep/er/x.yaml")
    assert answer.code == 0, answer.err
    text = (tmp_path / "here" / "deep" / "er" / "x.yaml").read_text()
    assert Experiment.parse(text).defaults().data.image_size == expected
    assert ("Fine details may want 448" in text) == detailed
    # Two classes share no group with others.
    assert Experiment.parse(text).values("model.groups.count") == [1]


def test_quick_leaves_the_backbone_frozen(command, folder):
    assert command("init", folder, "--quick", "-o", "q.yaml").code == 0
    experiment = Experiment.load("q.yaml")
    config = experiment.defaults()
    assert (config.training.finetune.epochs, config.training.head.epochs) == (0, 30)
    assert config.search.time_budget == "10m"
    assert len(experiment.values("model.backbone")) == 1
    checked = command("check", "q.yaml")
    assert (checked.code, "Warning" in checked.out) == (0, False)


def test_a_file_that_is_there_stays(command, folder, here):
    (here / "my-birds.yaml").write_text("mine")
    answer = command("init", folder)
    assert answer.code == 2
    assert answer.err == "my-birds.yaml: already exists; --force replaces it, -o names another\n"
    assert (here / "my-birds.yaml").read_text() == "mine"
    assert command("init", folder, "--force").code == 0
    assert Experiment.load("my-birds.yaml").name == "my-birds"
    assert command("init", folder, "-o", folder).err == (
        f"{folder}: is a directory, allowed is the name of a file\n"
    )


def test_parts_and_parquet(command, folder, tmp_path, here):
    files = sorted(folder.rglob("*.png"))
    for part in ("train", "test"):
        table = pa.table(
            {
                "image": [{"bytes": file.read_bytes(), "path": file.name} for file in files],
                "label": [file.parent.name for file in files],
            }
        )
        pq.write_table(table, tmp_path / f"birds-{part}.parquet")
    answer = command("init", f"{tmp_path}/birds-*.parquet", "-o", "p.yaml")
    assert answer.code == 0, answer.err
    assert "4 classes, 70 images (train 35, test 35)" in answer.out
    assert Experiment.load("p.yaml").defaults().data.source == "parquet"
    assert "Given parts: train 35, test 35." in (here / "p.yaml").read_text()


def test_a_path_may_hold_anything(command, folder, tmp_path):
    strange = tmp_path / "ä 'b': \"c\" # {d} [e]"
    shutil.copytree(folder, strange)
    answer = command("init", strange, "-o", "s.yaml")
    assert answer.code == 0, answer.err
    assert Experiment.load("s.yaml").defaults().data.path == str(strange)
    small = ("--set", "model.backbone=test_efficientnet", "--set", "model.weights=none")
    assert command("check", "s.yaml", *small).code == 0


def test_how_images_are_listed_can_be_said_and_the_rest_cannot(command, tmp_path):
    fill(tmp_path / "deep", {"birds/owl": 8, "birds/tit": 8, "fish/eel": 8, "fish/cod": 8})
    answer = command("init", tmp_path / "deep", "--set", "data.classes=leaf", "-o", "d.yaml")
    assert answer.code == 0, answer.err
    assert "4 classes, 32 images" in answer.out
    assert Experiment.load("d.yaml").defaults().data.classes == "leaf"
    answer = command("init", tmp_path / "deep", "--set", "data.fit=pad", "--set", "name=x")
    assert answer.code == 2
    assert [line.split(": allowed")[0] for line in answer.err.splitlines()] == [
        "--set data.fit",
        "--set name",
    ]
    answer = command("init", tmp_path / "deep", "--set", "data.classes=wrong")
    assert (answer.code, "data.classes" in answer.err) == (2, True)


def test_bad_input(command, tmp_path):
    assert "does not exist" in command("init", tmp_path / "nothing").err
    fill(tmp_path / "one", {"only": 9})
    answer = command("init", tmp_path / "one")
    assert (answer.code, "needed are images of at least 2 classes" in answer.err) == (2, True)
    fill(tmp_path / "few", {"many": 9, "one": 1})
    answer = command("init", tmp_path / "few")
    assert answer.code == 0
    assert "a search would refuse this data: 1 class has fewer than 2" in answer.err
    assert "one (1)" in answer.err


def test_what_follows_from_the_facts():
    facts = Facts(
        data={"source": "folder", "path": "."},
        parts={"train": 90_000, "validation": 10_000},
        class_count=500,
        short_side=None,
        class_ratio=12.0,
        backbones=["resnet18", "resnet50"],
        weights="imagenet",
    )
    experiment = Experiment.parse(starter_text("big", facts))
    assert experiment.values("model.backbone") == ["resnet18", "resnet50"]
    assert experiment.defaults().model.weights == "imagenet"
    assert experiment.defaults().data.image_size == 224
    # Activations of four views of so many images would fill a disk.
    assert experiment.defaults().data.views == 0
    assert experiment.bounds("model.groups.count") == (1, 20)
    assert "12 times the images of the smallest" in starter_text("big", facts)


@pytest.mark.slow
def test_a_search_of_images_keeps_its_file_and_resumes(process, command, folder, here):
    settings = [word for text in SMALL for word in ("--set", text)]
    (folder / "robin" / "notes.txt").touch()
    answer = process("search", folder, *settings)
    assert answer.code == 0, answer.err + answer.out
    assert "left out: 1 file: .txt 1" in answer.out + answer.err
    run = here / "runs" / "my-birds"
    kept = run / "starter.yaml"
    assert f"wrote the experiment: {kept}" in answer.out
    assert Experiment.load(kept).defaults().data.path == str(folder)
    assert (run / "best" / "model.safetensors").is_file()
    kept.write_text(kept.read_text() + "# mine\n")
    answer = command("search", folder, *settings)
    assert answer.code == 2
    assert "a run is there already; --resume continues it" in answer.err
    answer = command("search", folder, *settings, "--resume")
    assert answer.code == 0, answer.err
    assert "Winner" in answer.out
    assert kept.read_text().endswith("# mine\n")
    answer = command("init", run)
    assert answer.code == 2
    assert "found a run directory, allowed are images" in answer.err
    # A run that an experiment file began goes on with that file.
    kept.unlink()
    answer = command("search", folder, *settings, "--resume")
    assert answer.code == 2
    assert "the run was begun with an experiment file" in answer.err


def test_a_search_of_nothing_begins_no_run(command, here, tmp_path):
    (tmp_path / "empty").mkdir()
    answer = command("search", tmp_path / "empty")
    assert answer.code == 2
    assert "empty" in answer.err
    assert not (here / "runs").exists()
    answer = command("search", tmp_path / "empty", "--resume")
    assert "found no run to resume" in answer.err
    assert not (here / "runs").exists()
