"""The bundles at the end of a run: the winner's, and that of a simpler model that is better."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gsfl_tune.conclusion import Conclusion
from gsfl_tune.evidence import measure_probe
from gsfl_tune.experiment import Experiment, UserError
from gsfl_tune.experiment.config import Config
from gsfl_tune.export import export_run, load_bundle
from gsfl_tune.run import RunDirectory
from gsfl_tune.run.results import Calibration, Outcome, Probe, Results, write_results
from gsfl_tune.search import Candidate, Retraining
from gsfl_tune.training import Predictions, Workspace, load_predictions
from tests.evidence.conftest import FINETUNE, retrain, small_config
from tests.report.conftest import scores

ONE_SEED = {"search": {"final_seeds": 1}}


@dataclass(frozen=True)
class End:
    """A run whose winner and control are retrained, before its bundles are written."""

    run: RunDirectory
    conclusion: Conclusion
    winner: Candidate
    control: Candidate
    workspace: Workspace

    def write(self, best: str) -> Results:
        """Writes the bundles where this model is the best on validation, and its results."""
        accuracies = {"winner": 0.8, "control": 0.7, "probe": 0.6} | {best: 0.9}
        results = self._results(accuracies)
        groups = self.workspace.groups(self.winner.config)
        yardstick = measure_probe(self.workspace, self.winner.config)
        self.conclusion._write_bundles(
            results, self.winner, self.control, yardstick, groups, self.workspace
        )
        write_results(self.run.results_file, results)
        return results

    def _results(self, accuracies: dict[str, float]) -> Results:
        score = scores(0.5)

        def outcome(name: str, candidate: Candidate, temperature: float) -> Outcome:
            return Outcome(
                config=candidate.config.model_dump(mode="json"),
                validation=scores(accuracies[name]),
                test=score,
                seeds=candidate.seeds,
                trial=candidate.trial,
                calibration=Calibration(temperature, 40, 1, 20, score, score),
            )

        return Results(
            name="small",
            metric="validation/accuracy",
            trials={"COMPLETE": 4},
            winner=outcome("winner", self.winner, 1.5),
            control=replace(outcome("control", self.control, 2.0), kind="matched"),
            probe=Probe(
                test=score,
                validation=scores(accuracies["probe"]),
                calibration=Calibration(3.0, 40, 1, 20, score, score),
            ),
        )

    def predictions(self, candidate: Candidate) -> Predictions:
        (job,) = self.conclusion.retraining.jobs(candidate, "train+validation")
        return load_predictions(job.directory / "test.npz")


@pytest.fixture(scope="module")
def end(tmp_path_factory) -> End:
    return made(tmp_path_factory, small_config(**ONE_SEED))


def made(tmp_path_factory, config: Config) -> End:
    torch.set_num_threads(1)
    cache = tmp_path_factory.mktemp("cache")
    workspace = Workspace.open(config.data, cache_dir=cache, device=torch.device("cpu"))
    run = RunDirectory(tmp_path_factory.mktemp("run") / "small")
    run.path.mkdir()
    run.experiment_file.write_text("name: small\ndata: {source: typefaces}\n")
    winner = Candidate("search-3", config, trial=3)
    control = winner.plain()
    seeds = tuple(winner.seeds)
    for candidate in (winner, control):
        retrain(workspace, candidate.config, run.finals / candidate.label / "retrain", seeds)
    fixed: dict[str, Any] = config.model_dump(mode="json")
    context: Any = SimpleNamespace(run=run)  # of a driver; only the run directory is asked for
    conclusion = Conclusion(
        experiment=Experiment.parse(json.dumps(fixed)),
        run=run,
        manifest=None,  # its clocks stand still here
        workspace=workspace,
        retraining=Retraining(context, max_failures=0),
        slots=1,
        notice=pytest.fail,
    )
    return End(run, conclusion, winner, control, workspace)


def logits(path: Path, workspace: Workspace) -> np.ndarray:
    test = workspace.dataset.test
    squares = np.asarray(test.gather(np.arange(len(test))))
    return load_bundle(path, device="cpu").runtime.logits(squares).numpy()


def predicted(path: Path, workspace: Workspace, folder: Path, count: int = 10) -> list[str]:
    """What `predict` says of image files."""
    files = []
    for number, square in enumerate(workspace.dataset.test.gather(np.arange(count))):
        files.append(folder / f"{number}.png")
        Image.fromarray(np.asarray(square)).save(files[-1])
    return [each.classes[0] for each in load_bundle(path, device="cpu").predict(files)]


def named(end: End, scores: np.ndarray, count: int = 10) -> list[str]:
    return [end.workspace.dataset.classes[place] for place in scores.argmax(axis=1)[:count]]


def test_a_control_that_is_better_lies_beside_the_winner(end, tmp_path):
    end.write("control")
    description = json.loads((end.run.best_simple / "config.json").read_text())
    assert description["model"] == "control"
    assert description["calibration"]["temperature"] == 2.0
    assert description["experiment"]["model"]["head"] == "plain"
    assert json.loads((end.run.best_simple / "groups.json").read_text()) == {}
    expected = end.predictions(end.control).logits / 2.0
    np.testing.assert_allclose(logits(end.run.best_simple, end.workspace), expected, atol=5e-3)
    said = predicted(end.run.best_simple, end.workspace, tmp_path)
    assert said == named(end, expected)
    # The winner is where it always is.
    own = end.predictions(end.winner).logits / 1.5
    np.testing.assert_allclose(logits(end.run.best, end.workspace), own, atol=5e-3)
    assert not np.allclose(own, expected, atol=0.1)
    assert "The control is better than the winner" in (end.run.best / "README.md").read_text()
    assert "this is its bundle" in (end.run.best_simple / "README.md").read_text()


def test_a_probe_that_is_better_replaces_a_control_of_an_earlier_conclusion(end, tmp_path):
    end.write("control")
    end.write("probe")
    description = json.loads((end.run.best_simple / "config.json").read_text())
    assert description["model"] == "probe"
    assert description["calibration"]["temperature"] == 3.0
    expected = measure_probe(end.workspace, end.winner.config).logits / 3.0
    found = logits(end.run.best_simple, end.workspace)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-3)
    assert predicted(end.run.best_simple, end.workspace, tmp_path) == named(end, expected)
    out = export_run(end.run.path, tmp_path / "out", best_of_all=True)
    assert json.loads((out / "config.json").read_text())["model"] == "probe"


def test_a_probe_is_shown_images_of_the_size_it_was_fitted_on(tmp_path_factory):
    """The winner is finetuned, and shown larger images than it was trained on."""
    changes = {"data": {"eval_image_size": 80}, "training": {"finetune": FINETUNE}}
    end = made(tmp_path_factory, small_config(**ONE_SEED, **changes))
    end.write("probe")
    sizes = [
        json.loads((path / "config.json").read_text())["preprocessing"]["image_size"]
        for path in (end.run.best, end.run.best_simple)
    ]
    assert sizes == [80, 64]
    # Those of a bundle are divided by its temperature.
    expected = measure_probe(end.workspace, end.winner.config).logits / 3.0
    found = logits(end.run.best_simple, end.workspace)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-3)


def test_a_plain_winner_has_no_shared_branch_of_an_earlier_one(end, tmp_path):
    end.write("winner")
    assert end.run.best_training.is_dir()
    replace(end, winner=end.control).write("winner")
    assert not end.run.best_training.exists()
    with pytest.raises(UserError, match="no shared branch to export"):
        export_run(end.run.path, tmp_path / "out", with_shared=True)


def test_a_winner_that_is_best_leaves_no_other_model_beside_it(end, tmp_path):
    end.write("probe")
    assert end.run.best_simple.is_dir()
    end.write("winner")
    assert not end.run.best_simple.exists()
    own = end.predictions(end.winner).logits / 1.5
    assert predicted(end.run.best, end.workspace, tmp_path) == named(end, own)
    out = export_run(end.run.path, tmp_path / "out", best_of_all=True)
    assert json.loads((out / "config.json").read_text())["model"] == "winner"
