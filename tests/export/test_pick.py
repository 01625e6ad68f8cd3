"""The fastest trial that is accurate enough is trained to its end, once."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.export import export_run, load_bundle
from gsfl_tune.export.pick import choose, parse_rule
from gsfl_tune.run import RunDirectory
from gsfl_tune.run.results import Ensemble, Finding, Probe, read_results, write_results
from gsfl_tune.training import NonFiniteLoss, Training, Workspace
from gsfl_tune.training.temperature import fit_temperature
from tests.report.conftest import make_results, scores


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


def front_of_two(
    trained_run, tmp_path, *, epochs: int = 1, metric: str = "validation/accuracy"
) -> RunDirectory:
    """The run, whose front has its winner and a faster trial that is not trained yet."""
    run = RunDirectory(shutil.copytree(trained_run.path, tmp_path / "run"))
    content = json.loads(run.experiment_file.read_text())
    content["model"]["latent_dim"] = 8
    content["training"]["finetune"]["epochs"] = epochs
    config = Config.model_validate(content).model_dump(mode="json")
    results = make_results(pareto=[entry(7, 0.5, 1.0, config), entry(2, 0.9, 3.0)], metric=metric)
    results = replace(results, winner=replace(results.winner, trial=2))
    results = replace(
        results,
        ensemble=Ensemble([1, 2], results.winner.test),
        # Better than any network is after one epoch.
        probe=Probe(scores(0.9), None, scores(0.95, nll=0.01)),
        findings=[
            Finding("many_failed", "warning", {"failed": 4}, "4 of 10 trials failed."),
            Finding("shared_collapsed", "severe", {}, "The shared part has collapsed."),
        ],
    )
    write_results(run.results_file, results)
    assert read_results(run.results_file) == results
    return run


def test_the_choice_is_trained_tested_and_kept(trained_run, cache_dir, tmp_path, squares):
    run = front_of_two(trained_run, tmp_path)

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
    begins = [line for line in said if line.startswith("training the picked trial on ")]
    assert "the training images" in begins[0]
    assert "train + validation" in begins[1]
    told = [line for line in said if "is better than the picked trial on the validation" in line]
    assert told[0].startswith("The linear probe is better")
    assert told[0].endswith(": its bundle is in best-simple/ of the run.")
    card = (out / "README.md").read_text()
    assert card.split("\n\n")[1] == f"**{told[0]}**"
    codes = [each["code"] for each in bundle.metrics["findings"]]
    assert codes[0] == "probe_ahead_on_validation"
    assert codes[-2:] == ["one_seed", "many_failed"]
    _has_the_temperature_of_its_validation_predictions(bundle, run, cache_dir)
    assert len(bundle.predict(list(squares[:2]))) == 2
    # Where the trainings are, they are not said to begin.
    said.clear()
    shutil.rmtree(run.path / "picks" / "7")
    export_run(run.path, tmp_path / "once", pick=50.0, cache_dir=cache_dir, say=said.append)
    assert said[1:] == told
    # The second time it is there.
    said.clear()
    again = export_run(
        run.path, tmp_path / "again", pick=50.0, cache_dir=cache_dir, say=said.append
    )
    assert said[1:] == told
    assert (again / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()
    said.clear()
    best = export_run(run.path, tmp_path / "best", pick=0.0, cache_dir=cache_dir, say=said.append)
    assert said[1].startswith("The linear probe is better than the winner")
    assert load_bundle(best, "cpu").config["model"]["latent_dim"] == 32
    # One of an older version has no temperature, and says so.
    kept = run.path / "picks" / "7" / "config.json"
    content = json.loads(kept.read_text())
    del content["calibration"]
    kept.write_text(json.dumps(content))
    said.clear()
    export_run(run.path, tmp_path / "old", pick=50.0, cache_dir=cache_dir, say=said.append)
    assert "no temperature" in said[-1]
    assert "remove it" in said[-1]


def test_the_winner_of_the_training_images_alone_may_teach(trained_run, cache_dir, tmp_path):
    run = front_of_two(trained_run, tmp_path)
    results = read_results(run.results_file)
    config = Config.model_validate(json.loads(run.experiment_file.read_text()))
    own = replace(results.winner, config=config.model_dump(mode="json"))
    write_results(run.results_file, replace(results, winner=own))
    said = []
    out = export_run(
        run.path, tmp_path / "out", without_validation=True, cache_dir=cache_dir, say=said.append
    )
    assert "training the winner on the training images for 8 epochs" in said
    bundle = load_bundle(out, "cpu")
    assert bundle.metrics["winner"]["trial"] == 2
    workspace = Workspace.open(config.data, side=40, cache_dir=cache_dir)
    seen = json.loads((out / "config.json").read_text())["trained_on"]
    assert seen == workspace.dataset.trained_on(validation=False)
    training = Training(config, workspace, tmp_path / "again", seed=config.training.seed + 1)
    while not training.finished:
        training.run_epoch()
    logits = training.predict("validation").logits
    temperature = bundle.calibration["temperature"]
    pixels = workspace.dataset.pool.gather(workspace.dataset.validation_index[:4])
    torch.testing.assert_close(
        bundle.runtime.logits(pixels), torch.from_numpy(logits[:4]) / temperature,
        rtol=1e-2, atol=1e-2,
    )  # fmt: skip
    student = config.model_copy(
        update={
            "training": config.training.model_copy(update={"teacher": str(out)}),
            "loss": config.loss.model_copy(
                update={"distill": config.loss.distill.model_copy(update={"weight": 1.0})}
            ),
        }
    )
    assert workspace.teacher_notices(student) == []
    # The second time nothing is trained: what is left to say is that the probe is better.
    said.clear()
    export_run(
        run.path, tmp_path / "again2", without_validation=True, cache_dir=cache_dir, say=said.append
    )
    assert [line.partition(" on the ")[0] for line in said] == [
        "The linear probe is better than the winner"
    ]
    with pytest.raises(UserError, match="--without-validation: found with --with-shared, --pick"):
        export_run(run.path, tmp_path / "no", without_validation=True, best_of_all=True)


def test_a_metric_that_is_not_accuracy_keeps_its_name(trained_run, cache_dir, tmp_path):
    run = front_of_two(trained_run, tmp_path, metric="validation/macro_f1")
    said = []
    out = export_run(run.path, tmp_path / "out", pick=50.0, cache_dir=cache_dir, say=said.append)
    assert "validation macro f1 0.5" in said[0]
    validation = load_bundle(out, "cpu").metrics["winner"]["validation"]
    assert {"macro_f1", "accuracy"} <= validation.keys()


def test_a_choice_whose_training_was_stopped_goes_on(trained_run, cache_dir, tmp_path, monkeypatch):
    run = front_of_two(trained_run, tmp_path, epochs=3)
    train, trained = Training.run_epoch, []

    def stopped(self):
        if self.epoch == 2 and len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(self.epoch)
        return train(self)

    monkeypatch.setattr(Training, "run_epoch", stopped)
    with pytest.raises(KeyboardInterrupt):
        export_run(run.path, tmp_path / "out", pick=50.0, cache_dir=cache_dir)
    trained.append("again")
    export_run(run.path, tmp_path / "out", pick=50.0, cache_dir=cache_dir)
    # The one that is validated goes on; the one that is exported is trained behind it.
    assert trained == [0, 1, "again", 2, 0, 1, 2]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (NonFiniteLoss("non-finite loss in epoch 1"), "non-finite loss in epoch 1"),
        (torch.OutOfMemoryError("CUDA out of memory."), "CUDA out of memory"),
    ],
)
def test_a_choice_that_cannot_be_trained_is_told(
    trained_run, cache_dir, tmp_path, monkeypatch, error, words
):
    run = front_of_two(trained_run, tmp_path)

    def failing(self):
        raise error

    monkeypatch.setattr(Training, "run_epoch", failing)
    with pytest.raises(UserError, match=f"trial 7 cannot be trained with seed 1 .{words}"):
        export_run(run.path, tmp_path / "out", pick=50.0, cache_dir=cache_dir)


def _has_the_temperature_of_its_validation_predictions(bundle, run, cache_dir):
    """They are those of a training that has not seen the validation images."""
    config = Config.model_validate(bundle.config)
    workspace = Workspace.open(config.data, side=40, cache_dir=cache_dir)
    directory = run.finals / "search-7" / "validate" / "seed-1"
    training = Training(config, workspace, directory, seed=1, fit="train")
    assert training.look()
    held = training.predict("validation")
    expected = fit_temperature(held.logits[None], held.labels)
    assert bundle.calibration["temperature"] == pytest.approx(expected, rel=1e-3)
    assert bundle.calibration["images"] == len(held.labels)
    assert 0 < bundle.threshold("auto") < 1
    final = run.finals / "search-7" / "retrain" / "seed-1"
    trained = Training(config, workspace, final, seed=1, fit="train+validation")
    assert trained.look()
    test = workspace.dataset.test
    squares = np.asarray(test.gather(np.arange(len(test))))
    raw = trained.predict("test").logits
    found = bundle.runtime.logits(squares).numpy()
    np.testing.assert_allclose(found, raw / expected, rtol=0.02, atol=0.02)
