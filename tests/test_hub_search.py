"""A whole search whose backbone has weights of the hub, and its resume on another day."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gsfl_tune.experiment import Experiment
from gsfl_tune.export import load_bundle
from gsfl_tune.pipeline import search
from gsfl_tune.run import RunDirectory
from gsfl_tune.search import Watcher
from tests.hub_models import STATISTICS, publish, timm_model
from tests.hub_server import hub_in_use

FILE = """\
name: tiny
data: {source: typefaces, image_size: 32, typefaces: {train: 6, test: 2, size: 40}}
model:
  backbone: test_byobnet
  weights: {choice: [hf-hub:anna/zoo, hf-hub:anna/zoo@old]}
  latent_dim: 8
  groups: {count: 2}
training:
  device: cpu
  head: {epochs: 2, batch_size: 32}
search:
  trials: 2
  sampler: {name: grid}
  control: "off"
  finalists: 1
  final_seeds: 1
  resources: {cpu: 1, gpu: 0}
"""


class Silent(Watcher):
    pass


@pytest.mark.slow
def test_a_search_has_one_commit_from_its_begin_to_its_bundle(tmp_path: Path, monkeypatch) -> None:
    run = RunDirectory(tmp_path / "run")
    options = {"cache_dir": tmp_path / "cache", "watchers": [Silent()]}
    with hub_in_use(monkeypatch, tmp_path / "hub") as hub:
        old = publish(hub, "anna/zoo", timm_model("test_byobnet", seed=2), tmp_path / "old")
        hub.repositories["anna/zoo"].branches["old"] = old
        first = publish(hub, "anna/zoo", timm_model("test_byobnet"), tmp_path / "zoo")
        search(Experiment.parse(FILE), run.path, **options)
        pins = {
            "hf-hub:anna/zoo": f"hf-hub:anna/zoo@{first}",
            "hf-hub:anna/zoo@old": f"hf-hub:anna/zoo@{old}",
        }
        assert all(each in run.experiment_file.read_text() for each in pins.values())
        publish(hub, "anna/zoo", timm_model("test_byobnet", seed=1), tmp_path / "newer")
        # The user's own file, which names no commit: else it were another space, and refused.
        more = Experiment.parse(FILE, overrides=["search.final_seeds=2"])
        results = search(more, run.path, resume=True, **options)
        assert results.trials["COMPLETE"] + results.trials["PRUNED"] == 2
        assert json.loads((run.path / "hub-weights.json").read_text()) == pins
        assert len([each for each in hub.requests if f"resolve/{first}/model" in each]) <= 2
    # What is made of them knows where they are from, and needs no hub.
    description = json.loads((run.best / "config.json").read_text())
    weights = description["experiment"]["model"]["weights"]
    assert weights in pins.values()
    assert load_bundle(run.best).classes
    assert f"({weights}): apache-2.0 and mit (stated by" in (run.best / "README.md").read_text()
    assert description["preprocessing"]["mean"] == list(STATISTICS["mean"])
