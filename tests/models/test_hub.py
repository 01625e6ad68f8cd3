"""Weights of the Hugging Face hub: its client is real, its server stands in for it."""

from __future__ import annotations

import io
import json
import logging
import socket

import huggingface_hub
import pytest
import torch
from safetensors.torch import load

from gsfl_tune.models import (
    WeightsError,
    WeightsUnavailable,
    backbone_problem,
    create_backbone,
    hub_problem,
    licence,
    licence_problem,
    weights_problem,
)
from tests.hub_models import STATISTICS, files_of, publish, timm_model, with_config
from tests.hub_server import TOKEN, hub_in_use

NAME = "test_byobnet"
ZOO = "hf-hub:anna/zoo"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with hub_in_use(monkeypatch, tmp_path / "cache") as server:
        yield server


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """What timm publishes of a small model."""
    return files_of(timm_model(NAME), tmp_path_factory.mktemp("model"))


@pytest.fixture
def nowhere():
    """The address of a hub that nobody runs."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    return f"http://127.0.0.1:{port}"


def downloads(hub, file):
    return [each for each in hub.requests if each.startswith("GET") and each.endswith(file)]


def same(backbone, model):
    images = torch.rand(2, 3, 64, 64)
    return torch.equal(backbone(images), model.forward_features(images))


def test_a_published_model_is_the_backbone_and_is_downloaded_once(hub, tmp_path):
    model = timm_model(NAME)
    commit = publish(hub, "anna/zoo", model, tmp_path / "model")
    backbone = create_backbone(NAME, ZOO)
    assert same(backbone, model)
    assert backbone.preprocessing == (STATISTICS["mean"], STATISTICS["std"])
    again = create_backbone(NAME, f"{ZOO}@{commit}")
    assert again.digest == backbone.digest
    assert len(downloads(hub, "model.safetensors")) == 1
    assert not downloads(hub, "pytorch_model.bin")


def test_the_digest_is_that_of_what_was_loaded(hub, tmp_path):
    first = publish(hub, "anna/zoo", timm_model(NAME, seed=1), tmp_path / "first")
    before = create_backbone(NAME, ZOO).digest
    publish(hub, "anna/zoo", timm_model(NAME, seed=2), tmp_path / "second")
    assert create_backbone(NAME, ZOO).digest != before
    assert create_backbone(NAME, f"{ZOO}@{first}").digest == before


def test_branches_and_transformers_of_another_image_size(hub, tmp_path):
    model = timm_model("test_vit", img_size=96)
    publish(hub, "anna/vit", model, tmp_path / "vit")
    hub.repositories["anna/vit"].branches["small"] = hub.repositories["anna/vit"].branches["main"]
    backbone = create_backbone("test_vit", "hf-hub:anna/vit@small")
    ours, theirs = backbone.model.state_dict(), model.state_dict()
    same = [key for key in ours if torch.equal(ours[key], theirs[key])]
    assert set(ours) - set(same) == {"pos_embed"}  # resampled, as that of a file is


def test_a_full_commit_needs_no_network(hub, content, nowhere, monkeypatch):
    commit = hub.put("anna/zoo", content)
    known = create_backbone(NAME, f"{ZOO}@{commit}").digest
    monkeypatch.setenv("HF_ENDPOINT", nowhere)
    before = len(hub.requests)
    assert create_backbone(NAME, f"{ZOO}@{commit}").digest == known
    assert licence(NAME, f"{ZOO}@{commit}").name == "apache-2.0 and mit"
    assert len(hub.requests) == before


@pytest.mark.parametrize("how", ["down", "nowhere", "offline"])
def test_without_a_network_the_kept_copy_is_used_and_said(
    hub, content, nowhere, monkeypatch, caplog, how
):
    commit = hub.put("anna/zoo", content)
    known = create_backbone(NAME, ZOO).digest
    if how == "down":
        hub.answer = (503, "a break")
    elif how == "nowhere":
        monkeypatch.setenv("HF_ENDPOINT", nowhere)
    else:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with caplog.at_level(logging.WARNING, logger="gsfl_tune"):
        assert create_backbone(NAME, ZOO).digest == known
    assert f"its copy of {commit} in the cache is used" in caplog.text
    with pytest.raises(WeightsUnavailable, match=r"hf-hub:anna/other: http.* without a network"):
        create_backbone(NAME, "hf-hub:anna/other")
    # `check` says what is wrong with weights, not with the network.
    assert hub_problem(NAME, "hf-hub:anna/other") is None


def test_what_cannot_be_loaded_is_said_in_one_sentence(hub, content, caplog, monkeypatch):
    hub.put("anna/zoo", content)
    hub.put("anna/gated", content)
    hub.repositories["anna/gated"].gated = True
    hub.put("anna/theirs", content)
    hub.repositories["anna/theirs"].private = True
    hub.put("anna/empty", {"README.md": b""})
    hub.put("anna/broken", content | {"config.json": b"{"})
    bert = json.dumps({"architectures": ["BertModel"], "model_type": "bert"}).encode()
    hub.put("anna/bert", content | {"config.json": bert})
    hub.put("anna/other", with_config(content, model_args={"act_layer": "gelu", "img_size": 64}))
    tensors = ("model.safetensors", "pytorch_model.bin")
    hub.put("anna/bare", {key: data for key, data in content.items() if key not in tensors})
    hub.put("anna/damaged", content | {"model.safetensors": b"nothing"})
    hub.put("anna/lies", with_config(content, architecture="resnet18"))
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else")
    for backbone, weights, words in [
        (NAME, "hf-hub:anna/nothing", "hf-hub:anna/nothing: found no such model at http"),
        (NAME, "hf-hub:anna/theirs", "or it is private and the token does not open it"),
        (NAME, "hf-hub:anna/gated", "its owner must let you in first: ask at http"),
        (NAME, f"{ZOO}@v2", "the model has no revision v2"),
        (NAME, "hf-hub:a..b/c", "no name of a model"),
        ("resnet18", ZOO, f"holds weights of {NAME}, found model.backbone resnet18; allowed: "),
        (NAME, "hf-hub:anna/empty", "holds no config.json; allowed: a model of timm"),
        (NAME, "hf-hub:anna/broken", "config.json cannot be read"),
        (NAME, "hf-hub:anna/bert", "names no architecture of timm, but is of BertModel; allowed"),
        (NAME, "hf-hub:anna/other", f"changes what {NAME} computes by act_layer, allowed is"),
        (NAME, "hf-hub:anna/bare", "holds no model.safetensors or pytorch_model.bin; allowed"),
        (NAME, "hf-hub:anna/damaged", "model.safetensors cannot be read as weights"),
        ("resnet18", "hf-hub:anna/lies", "model.safetensors does not fit 'resnet18'"),
    ]:
        with pytest.raises(WeightsError, match="hf-hub:") as caught:
            create_backbone(backbone, weights)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
        assert "hf_of_somebody_else" not in f"{caught.value!r} {caplog.text}"


def test_who_may_read_a_private_model_does(hub, content, caplog):
    hub.put("anna/theirs", content)
    hub.repositories["anna/theirs"].private = True
    with caplog.at_level(logging.DEBUG):
        create_backbone(NAME, "hf-hub:anna/theirs")
    assert TOKEN not in caplog.text


def test_files_of_torch_are_read_without_their_code(hub, content):
    """Old models have these alone."""
    hub.put("anna/old", {k: v for k, v in content.items() if k != "model.safetensors"})
    hub.put("anna/new", content)
    assert create_backbone(NAME, "hf-hub:anna/old").digest == (
        create_backbone(NAME, "hf-hub:anna/new").digest
    )
    stream = io.BytesIO()
    torch.save({"state": _Trap(), **load(content["model.safetensors"])}, stream)
    bad = {k: v for k, v in content.items() if k != "model.safetensors"}
    hub.put("anna/trap", bad | {"pytorch_model.bin": stream.getvalue()})
    with pytest.raises(WeightsError, match=r"pytorch_model\.bin cannot be read as weights"):
        create_backbone(NAME, "hf-hub:anna/trap")


class _Trap:
    def __reduce__(self):
        return pytest.fail, ("code of a file was run",)


def test_the_file_that_the_configuration_names_is_taken(hub, content):
    config = json.loads(content["config.json"])
    config["pretrained_cfg"]["hf_hub_filename"] = "mine.safetensors"
    files = with_config(content, **config)
    files["mine.safetensors"] = files.pop("model.safetensors")
    hub.put("anna/mine", files)
    assert same(create_backbone(NAME, "hf-hub:anna/mine"), timm_model(NAME))
    assert not downloads(hub, "pytorch_model.bin")


def test_configurations_of_old_releases_of_timm(hub, content):
    """Architecture and normalisation were in one mapping."""
    config = json.loads(content["config.json"])
    old = {"architecture": NAME, "num_classes": 7, **config["pretrained_cfg"]}
    hub.put("anna/old", content | {"config.json": json.dumps(old).encode()})
    assert create_backbone(NAME, "hf-hub:anna/old").preprocessing.mean == STATISTICS["mean"]


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("std", [0.5, 0.0, 0.5], "std in config.json is [0.5, 0.0, 0.5]; allowed: three numbers"),
        ("std", [float("nan")] * 3, "three numbers above 0"),
        ("mean", [0.5], "mean in config.json is [0.5]; allowed: three numbers"),
        ("mean", "grey", "mean in config.json is grey"),
    ],
)
def test_images_are_not_normalised_by_what_is_no_statistic(hub, content, key, value, words):
    config = json.loads(content["config.json"])
    config["pretrained_cfg"][key] = value
    hub.put("anna/odd", with_config(content, **config))
    with pytest.raises(WeightsError) as refused:
        create_backbone(NAME, "hf-hub:anna/odd")
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("card", "config", "name", "words"),
    [
        ("license: MIT", None, "mit", "mit (stated by its model card)"),
        ("license: mit", "MIT", "mit", "mit (stated by its model card)"),
        ("license:\n- mit", None, "mit", "mit (stated by its model card)"),
        ("license: [mit, cc-by-nc-4.0]", "mit", "cc-by-nc-4.0 and mit", "by its model card"),
        ("tags: [timm]", "cc-by-nc-4.0", "cc-by-nc-4.0", "stated by its config.json"),
        ("license: other\nlicense_name: birds-1", None, "birds-1", "birds-1 (stated"),
        ("license: [", None, "unknown", "states none"),
        (None, "unknown", "unknown", "states none"),
        # What was trained further is not free because its card says so.
        (
            "license: mit",
            "cc-by-nc-4.0",
            "cc-by-nc-4.0 and mit",
            "stated by its config.json and its model card",
        ),
    ],
)
def test_the_licence_is_what_the_model_states(hub, content, card, config, name, words):
    about = json.loads(content["config.json"])
    about["pretrained_cfg"]["license"] = config
    files = with_config(content, **about)
    del files["README.md"]
    if card is not None:
        files["README.md"] = f"---\n{card}\n---\n# A model\n".encode()
    hub.put("anna/zoo", files)
    found = licence(NAME, ZOO)
    assert found.name == name
    assert words in str(found)
    assert not downloads(hub, "model.safetensors")


def test_a_card_that_cannot_be_read_may_state_another_licence(hub, content, nowhere, monkeypatch):
    """As timm leaves the cache: it has no use for the card."""
    commit = hub.put("anna/zoo", content)
    for file in ("config.json", "model.safetensors"):
        huggingface_hub.hf_hub_download("anna/zoo", file, revision=commit, endpoint=hub.url)
    monkeypatch.setenv("HF_ENDPOINT", nowhere)
    weights = f"{ZOO}@{commit}"
    assert create_backbone(NAME, weights).channels > 0
    assert licence(NAME, weights).name == "unknown"
    assert "cannot be reached" in licence(NAME, weights).source
    assert licence_problem(NAME, weights, ["apache-2.0", "mit"]) is not None


def test_licences_that_are_not_allowed_are_refused(hub, content):
    hub.put("anna/zoo", content)
    assert licence_problem(NAME, ZOO, ["apache-2.0", "MIT"]) is None
    for allowed in (["apache-2.0"], ["mit"]):
        problem = licence_problem(NAME, ZOO, allowed)
        assert problem is not None
        assert f"({ZOO}) have the licence apache-2.0 and mit (stated by its config" in problem
    hub.answer = (503, "a break")
    unknown = licence_problem(NAME, "hf-hub:anna/other", ["apache-2.0"])
    assert unknown is not None
    assert "unknown (hf-hub:anna/other: http" in unknown


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (ZOO, None),
        (f"{ZOO}@v1.2", None),
        (f"{ZOO}@refs/pr/3", None),
        ("hf-hub:timm/resnet18.a1_in1k", None),
        ("hf-hub:zoo", "names no model of the hub (allowed is hf-hub:OWNER/NAME or"),
        ("hf-hub:", "names no model of the hub"),
        (f"{ZOO}@", "names no model of the hub"),
        (f"{ZOO}/weights.pth", "names no model of the hub"),
        ("hf_hub:anna/zoo", "did you mean 'hf-hub:anna/zoo'?"),
        ("hf://anna/zoo", "did you mean 'hf-hub:anna/zoo'?"),
        ("nothing", "hf-hub:OWNER/NAME"),
    ],
)
def test_a_name_is_judged_by_how_it_is_written(value, words):
    problem = weights_problem(value)
    assert (problem is None) if words is None else (words in problem)


def test_a_backbone_of_the_hub_is_told_how_to_write_it():
    for name, wanted in [(ZOO, f"model.weights: {ZOO}"), ("hf-hub:zoo", "hf-hub:OWNER/NAME")]:
        problem = backbone_problem(name)
        assert problem is not None
        assert "the `architecture` in config.json there" in problem
        assert wanted in problem
