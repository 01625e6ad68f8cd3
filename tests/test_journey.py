"""One search for accuracy and latency that other programs follow, and all that comes after it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.config import Config
from gsfl_tune.training.checkpoint import load_checkpoint
from gsfl_tune.training.fingerprint import fingerprint
from tests.colours import write_colours
from tests.report.browser import Visit, launched
from tests.search.observers.tracking.wandb_files import run_id, summary

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

# Of the two sizes the larger one is slower, and the smaller one hardly learns: a front of both.
EXPERIMENT = """\
name: tiny
data:
  source: folder
  path: images
  image_size: {choice: [96, 32]}
model:
  backbone: test_efficientnet
  weights: none
  dropout: 0
  latent_dim: {choice: [32, 8]}
  head: {choice: [gsfl, plain]}
  groups:
    count: {int: [1, 20], when: {model.head: gsfl}}
training:
  device: cpu
  head:
    epochs: 15
    batch_size: 32
    learning_rate:
      - {float: [2e-3, 4e-3], when: {data.image_size: 96}}
      - {float: [1e-9, 1e-8], when: {data.image_size: 32}}
search:
  trials: 4
  objectives: [validation/accuracy, latency_ms]
  enqueue: [{data.image_size: 32}]
  max_concurrent: 1
  control: off
  finalists: 1
  final_seeds: 1
  resources: {cpu: 1, gpu: 0}
"""


class Home:
    """Where a person works: an experiment, a run, and the trackers' files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run = folder / "runs" / "tiny"
        self.mlflow = f"sqlite:///{folder / 'mlflow.db'}"
        (folder / "tiny.yaml").write_text(EXPERIMENT)
        write_colours(folder / "images", 96, train=24, val=12, test=8)

    def gsfl_tune(self, *arguments: object) -> str:
        environment = {**os.environ, "GSFL_TUNE_CACHE": str(self.folder / "cache")}
        done = subprocess.run(
            [sys.executable, "-m", "gsfl_tune", *map(str, arguments)],
            cwd=self.folder,
            env={**environment, "WANDB_MODE": "offline", "COLUMNS": "80"},
            capture_output=True,
            text=True,
            timeout=1200,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        assert "is not up to date" not in done.stdout + done.stderr
        return done.stdout

    @property
    def results(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.run / "results.json").read_text())
        return found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("home"))
    trackers = ("--mlflow", home.mlflow, "--wandb", "tests")
    # Whoever watches changes nothing; a collector of traces that is away is told at the end.
    said = home.gsfl_tune(
        "search", "tiny.yaml", *trackers, "--metrics", "0", "--traces", "http://127.0.0.1:9"
    )
    assert "metrics for Prometheus: http://127.0.0.1:" in said
    assert "spans could not be sent" in said
    return home


def test_mlflow_has_every_trial_and_the_answer(home: Home) -> None:
    import pandas
    from mlflow.tracking import MlflowClient

    client = MlflowClient(home.mlflow)
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    (parent,) = [each for each in runs if "mlflow.parentRunId" not in each.data.tags]
    children = {each.data.tags["gsfl_tune.trial"]: each for each in runs if each is not parent}
    table = pandas.read_parquet(home.run / "trials.parquet").set_index("number")
    assert children.keys() == {f"search-{number}" for number in table.index}
    for number, row in table.iterrows():
        child = children[f"search-{number}"]
        # Alternatives have numbers behind their path; of them one was active.
        active = row.filter(like="params.").dropna()
        params = {name[7:].partition("@")[0]: value for name, value in active.items()}
        assert child.data.params.keys() == params.keys()
        for name, value in params.items():
            found = child.data.params[name]
            assert found == value if isinstance(value, str) else float(found) == value
        assert child.data.metrics["validation/accuracy"] == row["validation/accuracy"]
        if row["state"] == "COMPLETE":
            assert child.info.status == "FINISHED"
            assert child.data.metrics["final/validation/accuracy"] == row["value"]
            assert child.data.metrics["final/latency_ms"] == row["latency_ms"]
    # What the search itself told at its end.
    assert parent.info.status == "FINISHED"
    winner = home.results["winner"]
    assert parent.data.tags["gsfl_tune.winner"] == str(winner["trial"])
    mean = winner["test"]["accuracy"]["mean"]
    assert parent.data.metrics["test/accuracy"] == pytest.approx(mean)
    kept = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert kept == {"experiment.yaml", "results.json"}


def test_wandb_has_a_file_for_every_trial_and_the_answer(home: Home) -> None:
    own = json.loads((home.run / "tracking.json").read_text())["id"]
    folders = {run_id(folder): folder for folder in (home.folder / "wandb").glob("offline-run-*")}
    assert folders.keys() == {f"{own}-search-{n}" for n in range(4)} | {f"{own}-answer"}
    answer = summary(folders[f"{own}-answer"])
    winner = home.results["winner"]
    assert answer["winner"] == winner["trial"]
    assert answer["test/accuracy"] == pytest.approx(winner["test"]["accuracy"]["mean"])
    for entry in home.results["pareto"]:
        found = summary(folders[f"{own}-search-{entry['trial']}"])
        assert found["state"] == "COMPLETE"
        assert found["final/validation/accuracy"] == pytest.approx(entry["accuracy"])
        assert found["final/latency_ms"] == pytest.approx(entry["latency_ms"])


def test_the_front_is_drawn_as_it_was_found(home: Home) -> None:
    pareto = home.results["pareto"]
    assert len(pareto) > 1, "nothing to choose from: the objectives do not conflict"
    home.gsfl_tune("report", "runs/tiny")
    with launched() as browser:
        here = Visit(browser, (home.run / "report.html").as_uri())
        here.page.click("#tab-search")
        dots = here.page.locator("#fig-pareto svg path[fill='var(--finished)']:not([opacity])")
        assert dots.count() == len(pareto)
        places = []
        for number, entry in enumerate(pareto):
            box = dots.nth(number).bounding_box()
            places.append((box["x"], -box["y"]))
            dots.nth(number).hover()
            tip = here.page.inner_text("#tip")
            assert tip.startswith(f"trial {entry['trial']}: {100 * entry['accuracy']:.1f} %")
        # The fastest first, and each that is slower is better.
        assert places == sorted(places)
        assert [height for _, height in places] == sorted(height for _, height in places)
        assert here.complaints == []
        here.close()


@pytest.mark.parametrize("points", [0.5, 100])
def test_what_is_picked_is_exported(home: Home, points: float) -> None:
    pareto = home.results["pareto"]
    best = max(entry["accuracy"] for entry in pareto)
    near = [entry for entry in pareto if 100 * (best - entry["accuracy"]) <= points + 1e-6]
    wanted = min(near, key=lambda entry: entry["latency_ms"])
    said = home.gsfl_tune(
        "export", "runs/tiny", f"out-{points}", "--pick", "fastest-within", points
    )
    assert f"picked trial {wanted['trial']}" in said
    bundle = json.loads((home.folder / f"out-{points}" / "config.json").read_text())
    assert bundle["experiment"] == wanted["config"]
    metrics = json.loads((home.folder / f"out-{points}" / "metrics.json").read_text())
    assert metrics["winner"]["trial"] == wanted["trial"]
    assert (points == 0.5) or wanted["trial"] != home.results["winner"]["trial"]


def test_the_command_of_the_report_trains_the_winner(home: Home) -> None:
    """Copied from the page with its button's text, run where the search was run."""
    home.gsfl_tune("report", "runs/tiny")
    with launched() as browser:
        here = Visit(browser, (home.run / "report.html").as_uri())
        command = here.page.text_content("#reproduce code >> nth=1")
        here.close()
    program, *words = shlex.split(command)
    assert (program, words[0]) == ("gsfl-tune", "train")
    said = home.gsfl_tune(*words)
    assert "finished: validation" in said
    directory = home.folder / said.splitlines()[0].removeprefix("training in ")
    trained = load_checkpoint(directory / "checkpoint.pt")
    assert trained is not None
    # What a training computes: all of its configuration is in it.
    winner = Config.model_validate(home.results["winner"]["config"])
    assert trained["fingerprint"] == fingerprint(winner)
    experiment = Experiment.load(home.folder / words[1], overrides=words[3::2])
    assert experiment.defaults() == winner
