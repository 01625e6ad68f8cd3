"""Bundles on the Hugging Face hub: its client is real, its server stands in for it."""

from __future__ import annotations

import json
import logging
import shutil
import socket
from pathlib import Path

import huggingface_hub
import pytest
import yaml

from gsfl_tune.bundles import files
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.export import BundleError, export_run, load_bundle
from gsfl_tune.export.hub import hub_place
from gsfl_tune.export.hub_metadata import card_metadata
from gsfl_tune.export.push import push, without_places
from tests.hub_server import OWNER, hub_in_use

FCMAE = "timm/convnextv2_atto.fcmae"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with hub_in_use(monkeypatch, tmp_path / "cache") as server:
        yield server


@pytest.fixture
def pushed(hub, bundle_path):
    return push(bundle_path, f"{OWNER}/zoo")


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_was_pushed_is_loaded_and_predicts_the_same(hub, pushed, bundle_path, images, caplog):
    with caplog.at_level(logging.WARNING, logger="gsfl_tune"):
        bundle = load_bundle(f"hf://{OWNER}/zoo")
    assert bundle.predict(images) == load_bundle(bundle_path).predict(images)
    assert bundle.source == str(pushed.place)
    assert str(pushed.place) in caplog.text
    stored = hub.repositories[f"{OWNER}/zoo"]
    assert stored.branches["main"] == pushed.place.revision
    names = set(stored.commits[pushed.place.revision])
    assert names == {path.name for path in bundle_path.iterdir()} | {".gitattributes"}
    model = stored.commits[pushed.place.revision][files.MODEL]
    assert model == (bundle_path / files.MODEL).read_bytes()
    # As the command line gives it.
    assert load_bundle(Path(f"hf://{OWNER}/zoo")).source == bundle.source


def test_the_card_begins_with_what_the_hub_reads(hub, pushed, bundle_path):
    stored = hub.repositories[f"{OWNER}/zoo"].commits[pushed.place.revision]
    text = stored["README.md"].decode()
    _, head, body = text.split("---\n", 2)
    assert body.strip() == (bundle_path / "README.md").read_text().strip()
    about = yaml.safe_load(head)
    assert about["library_name"] == "gsfl-tune"
    assert about["pipeline_tag"] == "image-classification"
    assert {"gsfl-tune", "gsfl-net", "safetensors"} <= set(about["tags"])
    assert "license" not in about  # random weights: nobody's but the publisher's
    (index,) = about["model-index"]
    (result,) = index["results"]
    assert result["task"]["type"] == "image-classification"
    values = {each["type"]: each["value"] for each in result["metrics"]}
    # Of the weights that are there: those of the first seed.
    assert values == {"accuracy": 0.48, "nll": 1.2}


@pytest.mark.parametrize(
    ("backbone", "weights", "chosen", "wanted"),
    [
        ("resnet18.a1_in1k", "imagenet", None, ("apache-2.0", None, "timm/resnet18.a1_in1k")),
        ("resnet18.a1_in1k", "imagenet", "CC-BY-4.0", ("cc-by-4.0", None, "timm/resnet18.a1_in1k")),
        ("resnet18", "none", "my-own", ("other", "my-own", None)),
        ("resnet18", "some.pth", None, (None, None, None)),
        ("convnextv2_atto.fcmae", "imagenet", None, ("cc-by-nc-4.0", None, FCMAE)),
    ],
)
def test_the_licence_is_that_of_the_backbone(backbone, weights, chosen, wanted):
    model = {"backbone": backbone, "weights": weights, "head": "gsfl"}
    description = {"model": "winner", "experiment": {"model": model, "data": {}}}
    about = yaml.safe_load(card_metadata(description, {}, chosen))
    assert (about.get("license"), about.get("license_name"), about.get("base_model")) == wanted
    assert "model-index" not in about


def test_a_converted_file_has_the_results_of_its_own():
    model = {"backbone": "resnet18", "weights": "none", "head": "plain"}
    table = [{"test": 0.9, "nll": 0.4, "ece": 0.1}, {"test": 0.88, "nll": 0.5, "ece": None}]
    description = {
        "model": "winner",
        "export": {"format": "onnx", "table": table},
        "experiment": {"name": "zoo", "model": model, "data": {"source": "folder"}},
    }
    scores = {"winner": {"test": {"accuracy": {"mean": 0.9, "values": [0.9]}}}}
    about = yaml.safe_load(card_metadata(description, scores))
    found = {e["type"]: e["value"] for e in about["model-index"][0]["results"][0]["metrics"]}
    assert found == {"accuracy": 0.88, "nll": 0.5}
    assert "onnx" in about["tags"]


def test_a_revision_stays_what_it_was(hub, pushed, bundle_path, images):
    first = load_bundle(f"hf://{pushed.place.repository}")
    changed = json.loads((bundle_path / "classes.json").read_text())
    groups = json.loads((bundle_path / "groups.json").read_text())
    changed[0], groups["gnu"] = "gnu", groups.pop(changed[0])
    (bundle_path / "classes.json").write_text(json.dumps(changed))
    (bundle_path / "groups.json").write_text(json.dumps(groups))
    again = push(bundle_path, "zoo", message="a gnu")
    assert again.place.repository == f"{OWNER}/zoo"
    assert hub.repositories[f"{OWNER}/zoo"].messages[-1] == "a gnu"
    assert load_bundle(f"hf://{OWNER}/zoo").classes[0] == "gnu"
    assert load_bundle(first.source).classes == first.classes
    # A full commit that was loaded needs no network.
    hub.answer = (500, "down")
    before = len(hub.requests)
    assert load_bundle(first.source).predict(images[:1]) == first.predict(images[:1])
    assert len(hub.requests) == before


def test_of_a_repository_with_pickles_and_code_only_tensors_and_json_are_read(hub, pushed, images):
    """Files that can run code do not even reach this machine."""
    repository = hub.repositories[f"{OWNER}/zoo"]
    strangers = ("pytorch_model.bin", "training.pt", "modeling.py", "weights/model.safetensors")
    content = dict(repository.commits[pushed.place.revision])
    hub.put(f"{OWNER}/zoo", content | dict.fromkeys(strangers, b"anything"))
    hub.requests.clear()
    bundle = load_bundle(f"hf://{OWNER}/zoo")
    assert bundle.predict(images)
    read = [request for request in hub.requests if "/resolve/" in request]
    assert any(request.endswith(files.MODEL) for request in read)
    assert [request for request in read if request.endswith(strangers)] == []


def test_a_branch_is_made_and_what_is_gone_is_removed(hub, bundle_path, pushed):
    repository = hub.repositories[f"{OWNER}/zoo"]
    newest = repository.branches["main"]
    content = dict(repository.commits[newest]) | {"shared.safetensors": b"old"}
    repository.commit("main", content, "an older bundle had more")
    done = push(bundle_path, f"{OWNER}/zoo", revision="small")
    assert set(repository.commits[done.place.revision]) == set(content) - {"shared.safetensors"}
    assert repository.branches["small"] == done.place.revision
    assert repository.branches["main"] != done.place.revision
    assert load_bundle(f"hf://{OWNER}/zoo@small").source == str(done.place)


def test_private_models_are_made_and_read_with_the_token(hub, bundle_path, pushed, monkeypatch):
    with pytest.raises(UserError, match="is public already"):
        push(bundle_path, f"{OWNER}/zoo", private=True)
    push(bundle_path, f"{OWNER}/secret", private=True)
    assert hub.repositories[f"{OWNER}/secret"].private
    assert load_bundle(f"hf://{OWNER}/secret").classes
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else")
    with pytest.raises(UserError, match=r"no such model at .* or it is private"):
        load_bundle(f"hf://{OWNER}/secret")


def test_nothing_of_this_machine_is_published(hub, bundle_path, tmp_path):
    config = json.loads((bundle_path / "config.json").read_text())
    config["experiment"]["data"]["path"] = str(tmp_path / "anna" / "birds")
    (bundle_path / "config.json").write_text(json.dumps(config))
    (bundle_path / "notes.txt").write_text("mine")
    done = push(bundle_path, "zoo")
    stored = hub.repositories[f"{OWNER}/zoo"].commits[done.place.revision]
    assert "notes.txt" not in stored
    assert not any(str(tmp_path).encode() in data for data in stored.values())
    assert json.loads(stored["config.json"])["experiment"]["data"]["path"] == "birds"
    assert without_places({"a": ["/x/y", 1, "s3://b/c"]}) == {"a": ["y", 1, "s3://b/c"]}


def test_what_cannot_be_pushed_is_said(hub, bundle_path, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"refuses it \(403\); the name belongs to somebody else"):
        push(bundle_path, "bert/zoo")
    hub.put(f"{OWNER}/other", {"pytorch_model.bin": b"x", ".gitattributes": b""})
    with pytest.raises(UserError, match=r"holds something else than a bundle \(pytorch_model"):
        push(bundle_path, f"{OWNER}/other")
    with pytest.raises(UserError, match="no name of a model"):
        push(bundle_path, "a/b/c")
    with pytest.raises(UserError, match="found no bundle in it"):
        push(tmp_path, "zoo")
    damaged = tmp_path / "damaged"
    shutil.copytree(bundle_path, damaged)
    (damaged / files.MODEL).write_bytes(b"x")
    with pytest.raises(BundleError, match="damaged or changed"):
        push(damaged, "zoo")
    hub.answer = (503, "a break")
    with pytest.raises(UserError, match=r"answered 503 \(a break\)$"):
        push(bundle_path, "zoo")
    hub.answer = None
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.delenv("HF_TOKEN")
    before = len(hub.requests)
    with pytest.raises(UserError, match="found no token of the hub, allowed: HF_TOKEN"):
        push(bundle_path, "zoo")
    assert len(hub.requests) == before


def test_what_cannot_be_loaded_is_said(hub, pushed, monkeypatch):
    for place, words in [
        (f"hf://{OWNER}/nothing", "no such model"),
        (f"hf://{OWNER}/zoo@nothing", "has no revision nothing"),
        ("hf://zoo", "allowed: hf://OWNER/NAME"),
        ("hf://a/b/c", "allowed: hf://OWNER/NAME"),
    ]:
        with pytest.raises(UserError, match=words):
            load_bundle(place)
    hub.put(f"{OWNER}/bert", {"config.json": b"{}", "model.safetensors": b"x"})
    with pytest.raises(BundleError, match=r"holds no bundle of gsfl-tune, missing classes\.json"):
        load_bundle(f"hf://{OWNER}/bert")
    stored = dict(hub.repositories[f"{OWNER}/zoo"].commits[pushed.place.revision])
    about = json.loads(stored["config.json"])
    for format in ("onnx", "torch-export"):
        changed = about | {"export": {"format": format}}
        hub.put(f"{OWNER}/{format}", stored | {"config.json": json.dumps(changed).encode()})
        with pytest.raises(BundleError, match=f"exported as {format}; hf:// loads safetensors"):
            load_bundle(f"hf://{OWNER}/{format}")
    hub.put(f"{OWNER}/changed", stored | {"model.safetensors": stored[files.MODEL] + b"x"})
    with pytest.raises(BundleError, match="damaged or changed"):
        load_bundle(f"hf://{OWNER}/changed")
    hub.answer = (403, "no")
    with pytest.raises(UserError, match=r"refuses it \(403\); allowed: a token that may read it"):
        load_bundle(f"hf://{OWNER}/zoo")
    hub.answer = None
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
    with pytest.raises(UserError, match=r"cannot be reached .* needs no network if it is named"):
        load_bundle(f"hf://{OWNER}/zoo")
    with pytest.raises(UserError, match="cannot be reached"):
        load_bundle(f"hf://{OWNER}/zoo@{'0' * 40}")


def test_places_of_this_machine_are_none_of_the_hub(tmp_path):
    assert hub_place(tmp_path) is None
    assert hub_place("runs/best") is None
    assert str(hub_place("hf://a/b@v1.2")) == "hf://a/b@v1.2"


@pytest.mark.parametrize(
    ("text", "published"),
    [
        ("sftp://anna:secret@host/photos/*.parquet", "sftp://host/photos/*.parquet"),
        ("ftp://anna:se@cret@host/x", "ftp://host/x"),
        ("zip://a.csv::smb://anna:secret@host/a.zip", "zip://a.csv::smb://host/a.zip"),
        ("https://host/x.parquet?X-Amz-Signature=secret", "https://host/x.parquet"),
        ("data.path: sftp://u:secret@host/x is slow", "data.path: sftp://host/x is slow"),
        ("~/photos/birds", "birds"),
        ("~anna/birds", "birds"),
        ("$HOME/birds", "birds"),
        ("${DATA}/anna/birds", "birds"),
        ("file:///home/anna/birds", "birds"),
        ("s3://bucket/a@2x/*.parquet", "s3://bucket/a@2x/*.parquet"),
        ("~5 % of a/b", "~5 % of a/b"),
    ],
)
def test_secrets_of_addresses_and_folders_of_people_are_not_published(text, published):
    assert without_places({"path": [text]}) == {"path": [published]}


@pytest.mark.parametrize(
    ("weights", "wanted"),
    [
        ({}, ("other", "apache-2.0 and cc-by-nc-4.0", ["timm/resnet18.a1_in1k", FCMAE])),
        ({"weights_b": "none"}, ("apache-2.0", None, "timm/resnet18.a1_in1k")),
        ({"weights_b": "some.pth"}, (None, None, "timm/resnet18.a1_in1k")),
    ],
)
def test_the_licence_of_two_backbones_is_that_of_both(weights, wanted):
    model = {"backbone": "resnet18.a1_in1k", "weights": "imagenet", "head": "plain"}
    model |= {"backbone_b": "convnextv2_atto.fcmae", "pooling": "bilinear", **weights}
    description = {"model": "winner", "experiment": {"model": model, "data": {}}}
    about = yaml.safe_load(card_metadata(description, {}))
    assert (about.get("license"), about.get("license_name"), about.get("base_model")) == wanted


def test_a_name_that_no_model_has_is_told(hub):
    with pytest.raises(UserError, match="no name of a model"):
        load_bundle(f"hf://a..b/c@{'0' * 40}")


def test_a_bundle_of_the_hub_is_exported(hub, pushed, bundle_path, tmp_path):
    out = export_run(Path(f"hf://{OWNER}/zoo"), tmp_path / "out")
    assert (out / files.MODEL).read_bytes() == (bundle_path / files.MODEL).read_bytes()
