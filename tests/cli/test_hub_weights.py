"""``model.weights: hf-hub:OWNER/NAME`` on the command line."""

from __future__ import annotations

import pytest

from tests.hub_models import publish, timm_model
from tests.hub_server import hub_in_use

TEXT = """\
name: tiny
data:
  source: typefaces
  image_size: 32
  typefaces: {train: 6, test: 2, size: 40}
model:
  backbone: test_byobnet
  weights: {choice: [none, hf-hub:anna/zoo]}
  latent_dim: 8
training: {device: cpu, head: {epochs: 2, batch_size: 32}}
"""


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setenv("GSFL_TUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TEXT)
    with hub_in_use(monkeypatch, tmp_path / "hub") as server:
        publish(server, "anna/zoo", timm_model("test_byobnet"), tmp_path / "zoo")
        yield server


def test_check_says_licences_and_what_does_not_fit(hub, command):
    found = command("check", "tiny.yaml")
    assert found.code == 0, found.err
    said = " ".join(found.out.split())
    assert "apache-2.0 and mit (stated by its config.json and its model card)" in said
    assert not [each for each in hub.requests if each.endswith("model.safetensors")]
    for override, words in [
        ("model.licenses=[apache-2.0]", "have the licence apache-2.0 and mit"),
        ("model.backbone=test_efficientnet", "holds weights of test_byobnet"),
        ("model.weights=hf-hub:anna/nothing", "found no such model at http"),
        ("model.weights=hf-hub:zoo", "'hf-hub:zoo' names no model of the hub"),
        ("model.weights=hf://anna/zoo", "did you mean 'hf-hub:anna/zoo'?"),
        ("model.backbone=hf-hub:anna/zoo", "with model.weights: hf-hub:anna/zoo"),
    ]:
        refused = command("check", "tiny.yaml", "--set", override)
        assert refused.code == 2, override
        assert words in refused.err
        assert "Traceback" not in refused.err


def test_check_needs_no_network(hub, command):
    hub.answer = (503, "a break")
    found = command("check", "tiny.yaml")
    assert found.code == 0, found.err
    assert "answered 503 (a break)" in " ".join(found.out.split())


def test_a_training_says_which_commit_it_has(hub, command, tmp_path):
    done = command("train", "tiny.yaml", "--set", "model.weights=hf-hub:anna/zoo")
    assert done.code == 0, done.err
    commit = hub.repositories["anna/zoo"].branches["main"]
    assert f"hf-hub:anna/zoo is now hf-hub:anna/zoo@{commit}" in done.out
    kept = (tmp_path / "runs" / "tiny-train" / "hub-weights.json").read_text()
    assert commit in kept


def test_a_training_without_the_weights_is_refused(hub, command):
    hub.answer = (503, "a break")
    refused = command("train", "tiny.yaml", "--set", "model.weights=hf-hub:anna/zoo")
    assert refused.code == 2
    assert "model.weights: hf-hub:anna/zoo: http" in refused.err
    assert "without a network" in refused.err
