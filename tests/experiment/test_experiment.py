import copy
from pathlib import Path

import pytest

from gsfl_tune.experiment import Experiment, ExperimentError, UserError

HEAD = "name: t\ndata: {source: typefaces}\n"


def test_numbers_are_numbers_and_words_words():
    config = Experiment.parse(
        HEAD + "loss: {reconstruction: 1e-3, class_center: .5, shared_center: 1.5e0}\n"
        "model: {weights: none, latent_dim: 0x40}\n"
    ).defaults()
    assert config.loss.reconstruction == 0.001
    assert config.loss.class_center == 0.5
    assert config.loss.shared_center == 1.5
    assert config.model.weights == "none"
    assert config.model.latent_dim == 64


@pytest.mark.parametrize("word", ["yes", "no", "on", "off"])
def test_yaml_11_words_are_no_truth_values(word):
    text = f"name: t\ndata: {{source: typefaces, download: {word}}}\n"
    with pytest.raises(ExperimentError, match=f"found '{word}', allowed true or false"):
        Experiment.parse(text)


def test_anchors_work():
    config = Experiment.parse(
        HEAD + "training:\n  head: {learning_rate: &rate 2e-3}\n"
        "  finetune: {head_learning_rate: *rate}\n"
    ).defaults()
    assert config.training.finetune.head_learning_rate == 0.002


def test_empty_section_is_the_defaults():
    assert Experiment.parse(HEAD + "model:\n") != Experiment.parse(HEAD)
    assert Experiment.parse(HEAD + "model:\n").defaults() == Experiment.parse(HEAD).defaults()


def test_overrides_replace_leaves_and_may_be_distributions():
    experiment = Experiment.parse(
        HEAD + "model: {latent_dim: 64, dropout: {float: [0, 0.5]}}\n",
        overrides=[
            "model.latent_dim={int: [128, 512]}",
            "model.dropout=0.1",
            "search.trials=5",
            "search.trials=7",
            "training.head.learning_rate=1e-3",
        ],
    )
    assert [parameter.name for parameter in experiment.space.parameters] == ["model.latent_dim"]
    config = experiment.defaults()
    assert (config.model.dropout, config.search.trials) == (0.1, 7)
    assert experiment.locate("search.trials") == ("--set", 0)
    assert Experiment.parse(experiment.to_yaml()) == experiment


def test_override_mends_a_missing_key():
    config = Experiment.parse("data: {source: typefaces}\n", overrides=["name=x"]).defaults()
    assert config.name == "x"


def test_override_wins_over_named_mappings():
    text = HEAD + "model: {size: {choice: {a: {latent_dim: 64, dropout: 0}, b: {latent_dim: 9}}}}\n"
    chosen = Experiment.parse(text, overrides=["model.size=b"])
    assert chosen.defaults().model.latent_dim == 9
    assert not chosen.space.parameters
    assert Experiment.parse(text, overrides=["model.latent_dim=5"]).values("model.latent_dim") == [
        5
    ]
    with pytest.raises(ExperimentError, match="found 'c', allowed a, b"):
        Experiment.parse(text, overrides=["model.size=c"])


def test_data_path_is_expanded(tmp_path, monkeypatch):
    (tmp_path / "images" / "a").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GSFL_TEST_PLACE", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    for written in ("images", "./images", "$GSFL_TEST_PLACE/images", "~/images"):
        experiment = Experiment.parse(f"name: t\ndata: {{source: folder, path: {written}}}\n")
        assert experiment.defaults().data.path == str(tmp_path / "images")
        rooted = Experiment.parse(f"name: t\ndata: {{path: images, root: {written}}}\n")
        assert rooted.defaults().data.root == str(tmp_path / "images")
    # What is written down works from every directory.
    resolved = experiment.to_yaml()
    monkeypatch.chdir("/")
    assert Experiment.parse(resolved) == experiment


def test_urls_are_not_looked_for():
    path = "s3://bucket/train.parquet"
    config = Experiment.parse(f"name: t\ndata: {{source: parquet, path: ['{path}']}}\n").defaults()
    assert config.data.path == [path]


def test_downloads_need_no_folder(tmp_path):
    text = f"name: t\ndata: {{source: pets, path: {tmp_path / 'new'}, download: true}}\n"
    assert Experiment.parse(text).defaults().data.download


def test_typefaces_know_their_taxonomy():
    experiment = Experiment.parse(
        HEAD + "model: {groups: {method: {choice: [kmeans, taxonomy]}}}\n"
    )
    assert experiment.values("model.groups.method") == ["kmeans", "taxonomy"]


def test_fixed_replaces_and_removes():
    experiment = Experiment.parse(
        HEAD
        + "model: {latent_dim: {int: [64, 128]}, dropout: 0.5, head: {choice: [gsfl, plain]}}\n"
    )
    before = copy.deepcopy(experiment)
    control = experiment.fixed({"model.head": "plain", "model.dropout": None})
    assert control.defaults().model.head == "plain"
    assert control.defaults().model.dropout == 0.28
    assert [parameter.name for parameter in control.space.parameters] == ["model.latent_dim"]
    assert experiment == before
    with pytest.raises(ExperimentError, match="allowed gsfl, plain"):
        experiment.fixed({"model.head": "other"})
    with pytest.raises(ExperimentError, match=r"did you mean model\.head"):
        experiment.fixed({"model.hed": "gsfl"})


def test_clamp_brings_bounds_down():
    def count(text, high):
        text = HEAD + f"model: {{groups: {{count: {text}}}}}\n"
        return Experiment.parse(text).clamp("model.groups.count", high)

    path = "model.groups.count"
    assert count("{int: [1, 20], default: 16}", 5).bounds(path) == (1, 5)
    assert count("{int: [1, 20], default: 16}", 5).defaults().model.groups.count == 5
    assert count("{int: [1, 20]}", 50).bounds(path) == (1, 20)
    assert count("{int: [8, 20], step: 4}", 5).values(path) == [5]
    assert count("{choice: [2, 4, 8], default: 8}", 5).values(path) == [2, 4]
    assert count("{choice: [8, 16]}", 5).values(path) == [5]
    assert count("12", 5).values(path) == [12]
    assert Experiment.parse(HEAD).clamp(path, 5).values(path) == [5]


def test_largest_image_size():
    experiment = Experiment.parse(
        "name: t\ndata: {source: typefaces, image_size: {choice: [96, 160]}}"
    )
    assert experiment.largest_image_size == 160
    assert Experiment.parse(HEAD).largest_image_size == 224


def test_drawn_values_that_do_not_go_together():
    experiment = Experiment.parse(
        HEAD
        + "training:\n  head: {epochs: {choice: [5, 0]}}\n  finetune: {epochs: {choice: [5, 0]}}\n"
    )
    with pytest.raises(UserError, match=r"both 0.*training\.head\.epochs=0"):
        experiment.configure({"training.head.epochs": 0, "training.finetune.epochs": 0})
    with pytest.raises(UserError, match=r"training\.head\.epochs: found -3, allowed an integer"):
        experiment.configure({"training.head.epochs": -3})


def test_load_reads_what_parse_reads(tmp_path: Path):
    file = tmp_path / "e.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + HEAD.replace("\n", "\r\n").encode())
    experiment = Experiment.load(file, overrides=["model.dropout=0.5"])
    assert experiment.file == str(file)
    assert experiment == Experiment.parse(HEAD, overrides=["model.dropout=0.5"])
    assert experiment.locate("data.source") == (str(file), 2)
    assert experiment.locate("data.fit") == (str(file), 2)
