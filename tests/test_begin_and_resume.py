"""First tries that failed, and runs that go on elsewhere: whole searches."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gsfl_tune.cli import main
from gsfl_tune.cluster import ray_session
from gsfl_tune.experiment import Experiment, UserError
from gsfl_tune.pipeline import search
from gsfl_tune.report import write_report
from gsfl_tune.run import RunDirectory
from gsfl_tune.run.manifest import Manifest
from gsfl_tune.search import Watcher
from gsfl_tune.search.study.journal import read_studies

FILE = """\
name: tiny
data: {source: folder, path: PLACE, image_size: 32, augment: {flip: false}}
model:
  backbone: test_efficientnet
  weights: none
  latent_dim: {choice: [8, 16]}
  groups: {count: 2}
training:
  device: cpu
  head: {epochs: 2, batch_size: 16, learning_rate: {float: [1e-3, 1e-2], log: true}}
search:
  trials: 2
  control: "off"
  finalists: 1
  final_seeds: 1
  resources: {cpu: 1, gpu: 0}
"""


@pytest.fixture(scope="module")
def one_ray():
    with ray_session(cpus=2):
        yield


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of noise in four classes."""
    random = np.random.default_rng(0)
    for number in range(48):
        folder = tmp_path / "photos" / f"class {number % 4}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (36, 36, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "photos"


class Notes(Watcher):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def notice(self, text: str) -> None:
        self.lines.append(text)


def go(tmp_path: Path, place: Path, *overrides: str, **options):
    made = Experiment.parse(FILE.replace("PLACE", str(place)), overrides=overrides)
    notes = Notes()
    results = search(
        made, tmp_path / "run", cache_dir=tmp_path / "cache", watchers=[notes], **options
    )
    return results, notes.lines


def test_weights_that_cannot_be_had_leave_no_run(tmp_path: Path, photos: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"nothing")
    for overrides in (
        [f"model.weights={weights}"],
        # Not the default's: a trial would find it out, some time.
        [f"model.weights={{choice: [none, {weights}]}}"],
    ):
        with pytest.raises(UserError, match=r"model\.weights: .*weights\.pth"):
            go(tmp_path, photos, *overrides)
        assert not run.manifest_file.exists()
        assert not run.journal.exists()
        assert not run.experiment_file.exists()


def test_a_grid_that_cannot_be_walked_leaves_no_run(tmp_path: Path, photos: Path) -> None:
    with pytest.raises(UserError, match="grid"):
        go(tmp_path, photos, "search.sampler.name=grid")
    assert not RunDirectory(tmp_path / "run").manifest_file.exists()


@pytest.mark.slow
@pytest.mark.usefixtures("one_ray")
def test_a_search_that_came_to_no_trial_is_begun_anew(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise UserError("model.weights: the network is gone")

    # After everything was looked at, and the run directory written to.
    with monkeypatch.context() as patch:
        patch.setattr("gsfl_tune.training.Workspace.feature_dim", fails)
        with pytest.raises(UserError, match="the network is gone"):
            go(tmp_path, photos)
    assert RunDirectory(tmp_path / "run").manifest_file.exists()
    results, lines = go(tmp_path, photos, "training.head.epochs=3")
    assert results.trials["COMPLETE"] + results.trials["PRUNED"] == 2
    assert any("has no trained epoch; it is begun anew" in line for line in lines)
    with pytest.raises(UserError, match="a run is there already"):
        go(tmp_path, photos)


@pytest.mark.slow
@pytest.mark.usefixtures("one_ray")
def test_a_search_goes_on_when_its_images_have_moved(tmp_path: Path, photos: Path) -> None:
    go(tmp_path, photos)
    run = RunDirectory(tmp_path / "run")
    kept = {path: path.stat().st_mtime_ns for path in run.finals.rglob("checkpoint.pt")}
    assert kept
    elsewhere = photos.rename(tmp_path / "elsewhere")
    results, _ = go(tmp_path, elsewhere, "search.final_seeds=2", resume=True)
    assert results.winner.config["data"]["path"] == str(elsewhere)
    # A retrain that was there is there: the same images, whatever their folder is called.
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    drivers = json.loads(run.manifest_file.read_text())["drivers"]
    assert len(drivers) == 2
    assert drivers[0]["begin"] < drivers[0]["end"] <= drivers[1]["begin"]
    # Other images are refused, wherever they lie.
    shutil.rmtree(elsewhere / "class 3")
    with pytest.raises(UserError, match="images or their split"):
        go(tmp_path, elsewhere, "search.final_seeds=3", resume=True)


@pytest.mark.slow
@pytest.mark.usefixtures("one_ray")
def test_a_search_goes_on_in_another_space(tmp_path: Path, photos: Path) -> None:
    go(tmp_path, photos, "search.trials=4", "search.sampler.name=random")
    run = RunDirectory(tmp_path / "run")
    changed = (
        "search.trials=6",
        "search.sampler.name=random",
        "model.latent_dim={choice: [8, 24, 32]}",
        "model.dropout={float: [0.0, 0.5], default: 0.2}",
    )
    elsewhere = photos.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="--change-space"):
        go(tmp_path, elsewhere, *changed, resume=True)
    results, lines = go(tmp_path, elsewhere, *changed, resume=True, change_space=True)
    (said,) = [line for line in lines if "the space is changed" in line]
    assert re.search(r"model\.latent_dim: was .*of 8, 16, found .*of 8, 24, 32", said)
    trials = read_studies(run.journal)["search"]
    assert len(trials) == 6
    inside = {trial.number for trial in trials if "outside" not in trial.user_attrs}
    assert 0 < len(inside & set(range(4))) < 4
    assert f"{len(inside & set(range(4)))} of 4 trials are trials of the new space" in said
    assert {4, 5} < inside
    assert results.winner.trial in inside
    assert {finalist.trial for finalist in results.finalists} <= inside
    assert results.winner.config["model"]["latent_dim"] in (8, 24, 32)
    assert (tmp_path / "run" / "best" / "config.json").is_file()
    # Again: nothing is left to change, and nothing to do.
    again, lines = go(tmp_path, elsewhere, *changed, resume=True, change_space=True)
    assert again == results
    assert lines == []
    assert "outside the changed space" in write_report(run.path).read_text()
    # Labels of rungs are those of the space as it is now.
    assert json.loads(run.manifest_file.read_text())["space_changed"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("step", ["space_changed", "begin"])
def test_a_change_of_space_that_is_killed_goes_on(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Whatever was written until then, and although there are results of as many trials."""
    old, _ = go(tmp_path, photos)
    changed = "model.latent_dim={choice: [8, 16, 24]}"
    manifest = RunDirectory(tmp_path / "run").manifest_file

    class Killed(BaseException):
        pass

    def kill(*given: object, **named: object) -> None:
        raise Killed

    with monkeypatch.context() as killing:
        killing.setattr(Manifest, step, kill)
        with pytest.raises(Killed):
            go(tmp_path, photos, changed, resume=True, change_space=True)
    new, lines = go(tmp_path, photos, changed, resume=True)
    assert lines  # a driver went on, and did not give the results of the old space
    assert new.winner.validation == old.winner.validation
    assert len(json.loads(manifest.read_text())["drivers"]) == 2
    assert json.loads(manifest.read_text())["space_changed"] > 0
    again, lines = go(tmp_path, photos, changed, resume=True)
    assert (again, lines) == (new, [])


def test_another_space_is_for_a_run_that_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "any.yaml", "--change-space"]) == 2
    assert "found without --resume, allowed with it" in capsys.readouterr().err
