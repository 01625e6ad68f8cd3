"""The fastest trial that is accurate enough is trained to its end, once."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.export import export_run, load_bundle
from gsfl_tune.export.pick import choose, parse_rule
from gsfl_tune.run.results import Ensemble, read_results, write_results
from tests.report.conftest import make_results


def entry(trial: int, accuracy: float, latency: float, config: dict | None = None) -> dict:
    return {
        "trial": trial, "accuracy": accuracy, "latency_ms": latency,
        "params": {"model.latent_dim": 8}, "config": config or {},
    }  # fmt: skip


FRONT = [entry(4, 0.80, 1.0), entry(9, 0.895, 2.0), entry(2, 0.9, 3.0)]


@pytest.mark.parametrize(
    ("points", "trial"), [(0.0, 2), (0.4, 2), (0.5, 9), (5.0, 9), (10.0, 4), (100.0, 4)]
)
def test_the_fastest_within_so_many_points(points, trial):
    assert choose(make_results(pareto=FRONT), points)["trial"] == trial


def test_one_objective_leaves_no_choice():
    with pytest.raises(UserError, match=r"--pick: found a search with one objective"):
        choose(make_results(), 0.5)


@pytest.mark.parametrize(
    "words", [["fastest-within", "much"], ["smallest", "0.5"], ["fastest-within", "-1"]]
)
def test_other_rules_are_refused(words):
    with pytest.raises(UserError, match="allowed fastest-within POINTS"):
        parse_rule(words)
    assert parse_rule(["fastest-within", "0.5"]) == 0.5


def test_the_choice_is_trained_tested_and_kept(trained_run, cache_dir, tmp_path, squares):
    import shutil

    from gsfl_tune.run import RunDirectory

    run = RunDirectory(shutil.copytree(trained_run.path, tmp_path / "run"))
    content = json.loads(run.experiment_file.read_text())
    content["model"]["latent_dim"] = 8
    content["training"]["finetune"]["epochs"] = 1
    config = Config.model_validate(content).model_dump(mode="json")
    results = make_results(pareto=[entry(7, 0.5, 1.0, config), entry(2, 0.9, 3.0)])
    results = replace(results, winner=replace(results.winner, trial=2))
    results = replace(results, ensemble=Ensemble([1, 2], results.winner.test))
    write_results(run.results_file, results)
    assert read_results(run.results_file) == results

    said = []
    out = export_run(run.path, tmp_path / "fast", pick=50.0, cache_dir=cache_dir, say=said.append)
    bundle = load_bundle(out, "cpu")
    assert bundle.config["model"]["latent_dim"] == 8
    assert bundle.metrics["winner"]["trial"] == 7
    assert bundle.metrics["winner"]["seeds"] == [1]
    assert 0 <= bundle.metrics["winner"]["test"]["accuracy"]["mean"] <= 1
    assert bundle.metrics["control"] is None
    # That of the winner's seeds says nothing of this trial.
    assert bundle.metrics["ensemble"] is None
    assert "picked trial 7" in said[0]
    assert len(bundle.predict(list(squares[:2]))) == 2
    # The second time it is there.
    said.clear()
    again = export_run(
        run.path, tmp_path / "again", pick=50.0, cache_dir=cache_dir, say=said.append
    )
    assert len(said) == 1
    assert (again / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()
    best = export_run(run.path, tmp_path / "best", pick=0.0, cache_dir=cache_dir)
    assert load_bundle(best, "cpu").config["model"]["latent_dim"] == 32
