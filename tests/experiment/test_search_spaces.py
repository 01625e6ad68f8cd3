"""The files that the project ships."""

from pathlib import Path

import pytest

from gsfl_tune.experiment import Experiment, ExperimentError

FOLDER = Path(__file__).parents[2] / "search_spaces"
EXPECTED = [
    "aircraft", "cars", "cub200", "few_labels", "flowers102", "frozen_head", "image_folder", "pets",
    "pretrain", "typefaces", "wide",
]  # fmt: skip
SEARCHED_EVERYWHERE = [
    "model.groups.count",
    "model.feature_scale",
    "model.dropout",
    "loss.reconstruction",
    "loss.class_center",
    "loss.shared_center",
    "loss.center_rate",
    "loss.label_smoothing",
    "training.head.learning_rate",
]


def load(name, tmp_path, *overrides):
    place = [] if name == "typefaces" else [f"data.path={tmp_path}"]
    if name == "few_labels":
        place.append(f"data.unlabelled={tmp_path}")
    return Experiment.load(FOLDER / f"{name}.yaml", [*place, *overrides])


def test_all_are_there():
    assert sorted(file.stem for file in FOLDER.glob("*.yaml")) == EXPECTED


@pytest.mark.parametrize("name", EXPECTED)
def test_shipped_file_is_good(name, tmp_path):
    experiment = load(name, tmp_path)
    first = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert first == "# yaml-language-server: $schema=../docs/schema.json"
    assert experiment.name == name
    searched = {parameter.path for parameter in experiment.space.parameters}
    assert searched >= set(SEARCHED_EVERYWHERE)
    low, high = experiment.bounds("training.head.learning_rate")
    assert low <= 3e-4 < 1e-2 <= high
    assert experiment.configure(experiment.default_params()).name == name


@pytest.mark.parametrize("name", [name for name in EXPECTED if name != "typefaces"])
def test_the_backbone_is_searched(name, tmp_path):
    assert len(load(name, tmp_path).values("model.backbone")) > 1


@pytest.mark.parametrize("name", [name for name in EXPECTED if name != "frozen_head"])
def test_all_but_one_file_train_the_backbone_by_default(name, tmp_path):
    experiment = load(name, tmp_path)
    assert experiment.defaults().training.finetune.epochs > 0
    low, high = experiment.bounds("training.finetune.learning_rate")
    assert high >= 5 * low
    assert len(experiment.values("training.finetune.blocks")) > 1
    assert len(experiment.values("training.ema")) > 1


@pytest.mark.parametrize("name", ["image_folder", "cub200", "cars"])
def test_missing_data_is_said(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExperimentError, match=r"data\.path: found .* does not exist"):
        Experiment.load(FOLDER / f"{name}.yaml")


def test_some_file_shows_alternatives(tmp_path):
    names = [parameter.name for parameter in load("cub200", tmp_path).space.parameters]
    assert "training.finetune.learning_rate@1" in names


@pytest.mark.parametrize("blocks", [1, 2, 3, 7, "all"])
def test_the_template_has_a_rate_for_every_number_of_blocks(blocks, tmp_path):
    """Whoever trains more blocks gets the rate of two, not the one of the schema."""
    overrides = [f"training.finetune.blocks={blocks}", "data.views=0"]
    stage = load("image_folder", tmp_path, *overrides).defaults().training.finetune
    assert stage.blocks == blocks
    assert stage.learning_rate == (3e-3 if blocks == 1 else 1.2e-3)
    assert load("image_folder", tmp_path).warnings == []
