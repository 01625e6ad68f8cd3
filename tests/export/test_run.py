"""Exporting the winner of a run, with and without what only the evidence needs."""

from __future__ import annotations

import json

import pytest
import torch

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.export import (
    BundleError,
    bundle_from_network,
    export_run,
    load_bundle,
    write_best_training,
)
from gsfl_tune.losses import ClassCenters
from gsfl_tune.run import RunDirectory
from gsfl_tune.run.results import Difference, Interval, Probe, write_results
from tests.export.conftest import CLASSES, GROUPS, METRICS, SIDE, make_config, make_network
from tests.report.conftest import make_results, scores


@pytest.fixture
def run(tmp_path, config, network) -> RunDirectory:
    run = RunDirectory(tmp_path / "a run")
    run.path.mkdir()
    run.experiment_file.write_text("name: zoo\ndata: {source: typefaces}\n")
    bundle_from_network(
        run.best, network, config, classes=CLASSES, groups=GROUPS, side=SIDE, metrics=METRICS
    )
    centers = ClassCenters(torch.tensor(GROUPS), 24)
    write_best_training(run.best_training, network, centers)
    return run


def test_the_copy_is_the_bundle(run, tmp_path, images):
    out = export_run(run.path, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        path.name: path.read_bytes() for path in run.best.iterdir()
    }
    assert load_bundle(out).predict(images[:2]) == load_bundle(run.best).predict(images[:2])


def results_of(run, *, probe: float) -> None:
    results = make_results(
        metric="validation/accuracy",
        probe=Probe(scores(0.65), Difference(0.0, Interval(-0.1, 0.1)), scores(probe)),
    )
    write_results(run.results_file, results)


def test_the_best_of_all_is_the_winner_or_what_lies_beside_it(run, tmp_path, config, network):
    results_of(run, probe=0.6)
    said: list[str] = []
    out = export_run(run.path, tmp_path / "winner", best_of_all=True, say=said.append)
    assert (out / "config.json").read_bytes() == (run.best / "config.json").read_bytes()
    assert "winner is the best" in said[0]
    results_of(run, probe=0.95)
    with pytest.raises(UserError, match="is gone; it held the linear probe"):
        export_run(run.path, tmp_path / "gone", best_of_all=True)
    bundle_from_network(
        run.best_simple, network, config, classes=CLASSES, groups=None, side=SIDE,
        metrics=METRICS, model="probe",
    )  # fmt: skip
    out = export_run(run.path, tmp_path / "probe", best_of_all=True, say=said.append)
    assert json.loads((out / "config.json").read_text())["model"] == "probe"
    assert "linear probe is better than the winner" in said[-1]


def test_whoever_exports_a_winner_hears_of_a_simpler_model_that_is_better(run, tmp_path):
    said: list[str] = []
    export_run(run.path, tmp_path / "unknown", say=said.append)
    results_of(run, probe=0.6)
    export_run(run.path, tmp_path / "best", say=said.append)
    assert said == []
    results_of(run, probe=0.95)
    export_run(run.path, tmp_path / "worse", say=said.append)
    assert said[0].startswith("The linear probe is better than the winner on the validation images")
    assert said[0].endswith("best-simple/. --best-of-all exports it")


def test_a_bundle_that_has_left_its_run_says_so_too(run, tmp_path, config, network):
    said: dict[str, list[str]] = {"winner": [], "probe": []}
    results_of(run, probe=0.95)
    metrics = json.loads(run.results_file.read_text())
    for model, lines in said.items():
        path = bundle_from_network(
            tmp_path / model, network, config, classes=CLASSES, groups=None, side=SIDE,
            metrics=metrics, model=model,
        )  # fmt: skip
        export_run(path, tmp_path / f"copy of {model}", say=lines.append)
    [line] = said["winner"]
    assert line.startswith("The linear probe is better than the winner on the validation images")
    assert said["probe"] == []
    export_run(run.best, tmp_path / "of an unknown run", say=said["probe"].append)
    assert said["probe"] == []


def test_the_best_of_all_needs_a_run_that_compared_them(run, tmp_path):
    results = make_results(probe=None)
    write_results(run.results_file, results)
    with pytest.raises(UserError, match="no validation metrics of the linear probe"):
        export_run(run.path, tmp_path / "out", best_of_all=True)
    with pytest.raises(UserError, match="--best-of-all: found with --pick"):
        export_run(run.path, tmp_path / "out", best_of_all=True, pick=0.5)


def test_the_shared_branch_comes_along_when_asked_for(run, tmp_path, network, images):
    plain = export_run(run.path, tmp_path / "plain")
    full = export_run(run.path, tmp_path / "full", with_shared=True)
    sizes = [sum(path.stat().st_size for path in out.iterdir()) for out in (plain, full)]
    assert sizes[0] < sizes[1]
    bundle = load_bundle(full)
    assert bundle.predict(images[:1]) == load_bundle(plain).predict(images[:1])
    state = bundle.shared_state()
    together = {**network.state_dict(), **state}
    for name, tensor in network.state_dict().items():
        assert torch.equal(together[name], tensor)
    assert {name for name in state if name.startswith("head.")} == {
        name for name in network.state_dict() if name.startswith(("head.shared", "head.decoder"))
    }
    assert "centers.centers" in state
    with pytest.raises(BundleError, match="--with-shared"):
        load_bundle(plain).shared_state()


def test_nothing_is_overwritten(run, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    export_run(run.path, out)
    before = (out / "config.json").read_bytes()
    with pytest.raises(UserError, match="not an empty directory"):
        export_run(run.path, out)
    assert (out / "config.json").read_bytes() == before
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="not an empty directory"):
        export_run(run.path, tmp_path / "file")


def test_a_damaged_bundle_is_not_exported(run, tmp_path):
    content = bytearray((run.best / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (run.best / "model.safetensors").write_bytes(content)
    with pytest.raises(BundleError, match="damaged"):
        export_run(run.path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_damaged_or_missing_shared_tensors_are_told(run, tmp_path):
    content = bytearray((run.best_training / "shared.safetensors").read_bytes())
    content[-1] ^= 1
    (run.best_training / "shared.safetensors").write_bytes(content)
    with pytest.raises(BundleError, match="damaged"):
        export_run(run.path, tmp_path / "out", with_shared=True)
    (run.best_training / "shared.safetensors").unlink()
    with pytest.raises(UserError, match="no shared branch"):
        export_run(run.path, tmp_path / "out", with_shared=True)


def test_an_unfinished_run_says_how_to_finish_it(tmp_path):
    run = RunDirectory(tmp_path / "a run")
    run.path.mkdir()
    with pytest.raises(UserError, match="not a run directory"):
        export_run(run.path, tmp_path / "out")
    run.experiment_file.write_text("name: zoo\n")
    with pytest.raises(UserError, match=r"no winner yet(.|\n)*--resume"):
        export_run(run.path, tmp_path / "out")
    with pytest.raises(UserError, match="no such run"):
        export_run(tmp_path / "nothing", tmp_path / "out")


def test_a_plain_winner_leaves_centers_out(tmp_path, config):

    assert (
        write_best_training(tmp_path / "t", make_network(make_config(head="plain")), None) is None
    )
    assert not (tmp_path / "t").exists()


def test_digests_of_both_files_are_in_the_configuration(run, tmp_path):
    out = export_run(run.path, tmp_path / "out", with_shared=True)
    digests = json.loads((out / "config.json").read_text())["sha256"]
    assert set(digests) == {"model.safetensors", "shared.safetensors"}
