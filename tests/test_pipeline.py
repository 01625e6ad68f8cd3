"""The whole way, as a user goes it: real commands on real files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import optuna
import pandas
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from PIL import Image

from gsfl_tune.experiment import Experiment
from gsfl_tune.run.results import read_results
from gsfl_tune.run.verdict import TITLES, best_on_validation

from .commands import command, environment, gsfl_tune, make_home
from .waiting import wait_until


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return make_home(tmp_path_factory)


@pytest.fixture(scope="module")
def finished(home):
    """A finished run and what the search printed."""
    done = gsfl_tune(home, "search", "tiny.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    return home / "runs" / "tiny", done.stdout


def studies(run: Path):
    storage = JournalStorage(JournalFileBackend(str(run / "study.journal")))
    names = optuna.study.get_all_study_names(storage)
    return {name: optuna.load_study(study_name=name, storage=storage) for name in names}


def passed(home, *arguments):
    done = gsfl_tune(home, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def results(home, run):
    return json.loads(passed(home, "results", run, "--json"))


def test_the_run_directory_holds_what_is_promised(finished):
    run, _ = finished
    for name in ("experiment.yaml", "study.journal", "trials.parquet", "results.json", "data.json"):
        assert (run / name).is_file(), name
    assert {path.name for path in (run / "best").iterdir()} == {
        "model.safetensors",
        "config.json",
        "classes.json",
        "groups.json",
        "metrics.json",
        "README.md",
    }
    assert (run / "best-training").is_dir()
    for number in range(5):
        trial = run / "trials" / str(number)
        records = [json.loads(line) for line in (trial / "epochs.jsonl").read_text().splitlines()]
        assert [record["epoch"] for record in records] == list(range(1, len(records) + 1))
        assert list(trial.glob("events.out.tfevents.*")), f"no TensorBoard events in {trial}"
    assert not (run / ".interrupt").exists()


def test_the_winner_comes_with_its_evidence(finished):
    run, output = finished
    evidence = json.loads((run / "evidence.json").read_text())
    groups = json.loads((run / "best" / "groups.json").read_text())
    assert ("probes" in evidence) == (len(set(groups.values())) > 1)
    assert evidence["swap"]["pairs"] > 0
    assert evidence["calibration"]["bins"]
    assert all((run / picture["file"]).is_file() for picture in evidence["pictures"])
    assert "Swap test" in output


def test_three_models_are_carried_to_the_end_and_the_best_is_named(home, finished):
    """Nobody leaves with a model that is worse than a logistic regression without knowing it."""
    run, _ = finished
    found = read_results(run / "results.json")
    assert found.control is not None
    assert {"accuracy", "nll"} <= found.probe.validation.keys()
    gap = found.probe.difference.interval
    for interval in (found.winner.interval, found.control.interval, gap):
        assert interval.covers_seeds
    winner, probe = (each.test["accuracy"].mean for each in (found.winner, found.probe))
    assert found.probe.difference.mean == pytest.approx(winner - probe)
    assert {each.code for each in found.findings or ()} >= {"few_images"}
    best = best_on_validation(found)
    assert (run / "best-simple").is_dir() == (best != "winner")
    passed(home, "export", run, "best-of-all", "--best-of-all")
    described = json.loads((home / "best-of-all" / "config.json").read_text())
    assert described["model"] == best
    text = gsfl_tune(home, "results", run).stdout
    assert text.startswith(f"The {TITLES[best]} ") == (best != "winner")


def test_the_journal_and_the_table_agree(finished):
    run, _ = finished
    found = studies(run)
    assert set(found) == {"search", "control"}
    table = pandas.read_parquet(run / "trials.parquet")
    for name, study in found.items():
        rows = table[table["study"] == name].set_index("number")
        assert len(rows) == len(study.trials) == 5
        for trial in study.trials:
            assert trial.state.is_finished()
            assert rows.loc[trial.number, "state"] == trial.state.name
            if trial.state == optuna.trial.TrialState.COMPLETE:
                assert rows.loc[trial.number, "value"] == trial.value
    assert not any(name.startswith("loss.") for name in found["control"].best_trial.params)


def test_rungs_and_workers_are_written_down(finished):
    run, _ = finished
    table = pandas.read_parquet(run / "trials.parquet")
    stretches = [json.loads(line) for line in (run / "workers.jsonl").read_text().splitlines()]
    for name, study in studies(run).items():
        rows = table[table["study"] == name].set_index("number")
        for trial in study.trials:
            row = rows.loc[trial.number].filter(like="rungs.").dropna()
            assert {int(key[6:]): value for key, value in row.items()} == trial.intermediate_values
            own = [s for s in stretches if (s.get("study"), s.get("trial")) == (name, trial.number)]
            assert [s["rung"] for s in own] == sorted(trial.intermediate_values)
            assert own[-1]["epoch"] == rows.loc[trial.number, "epochs"]
    retrains = [stretch["job"] for stretch in stretches if "job" in stretch]
    # Two finalists and two rivals are validated, winner and control tested: two seeds each.
    assert len(retrains) == 12
    assert all(s["begin"] < s["end"] and s["worker"] for s in stretches)


def test_the_search_names_the_report_and_the_report_shows_the_search(home, finished):
    run, output = finished
    assert output.splitlines()[-1].endswith("gsfl-tune report runs/tiny --open")
    passed(home, "report", "runs/tiny")
    page = (run / "report.html").read_text(encoding="utf-8")
    for id_of_chart in ("curves", "best", "parallel", "slices", "rungs", "timeline", "classes"):
        assert f'data-chart="{id_of_chart}"' in page, id_of_chart


def test_the_first_trial_is_the_defaults_and_the_published_setting_only_where_it_is_cheap(
    finished,
):
    run, output = finished
    search = studies(run)["search"]
    origins = [trial.user_attrs.get("origin") for trial in search.trials]
    assert origins[0] == "defaults"
    assert search.trials[0].state == optuna.trial.TrialState.COMPLETE
    # One of five trials is more than a tenth of the search.
    assert "published" not in origins
    assert "published: it would take 20% of the search" in " ".join(output.split())


def test_groups_are_at_most_half_the_classes(finished):
    run, _ = finished
    distribution = studies(run)["search"].best_trial.distributions["model.groups.count"]
    assert distribution.high == 10


def test_results_say_what_won_and_by_how_much(home, finished):
    run, output = finished
    found = results(home, run)
    assert found["status"] == "finished"
    assert sum(found["trials"].values()) == 5
    for side in ("winner", "control"):
        for part in ("validation", "test"):
            score = found[side][part]["accuracy"]
            assert len(score["values"]) == 2
            assert score["mean"] == pytest.approx(np.mean(score["values"]))
    assert found["winner"]["config"]["model"]["head"] == "gsfl"
    assert found["control"]["config"]["model"]["head"] == "plain"
    assert found["control"]["kind"] == "tuned"
    difference = found["difference"]
    assert difference["mean"] == pytest.approx(
        found["winner"]["test"]["accuracy"]["mean"] - found["control"]["test"]["accuracy"]["mean"]
    )
    assert difference["interval"]["low"] <= difference["mean"] <= difference["interval"]["high"]
    means = {each["trial"]: each["validation"]["accuracy"]["mean"] for each in found["finalists"]}
    assert means[found["winner"]["trial"]] == max(means.values())
    assert str(run.name) in output


def test_the_bundle_is_the_first_seed_and_predicts_as_it_was_tested(home, finished):
    from gsfl_tune import load_bundle
    from gsfl_tune.data import prepare

    run, _ = finished
    found = results(home, run)
    config = Experiment.load(run / "experiment.yaml").defaults()
    dataset = prepare(config.data, cache_dir=home / "cache")
    metrics = load_bundle(run / "best", device="cpu").evaluate(dataset.test)
    values = found["winner"]["test"]["accuracy"]["values"]
    assert metrics["accuracy"] == pytest.approx(values[0])


def test_predict_evaluate_and_export_from_the_command_line(home, finished):
    run, _ = finished
    passed(home, "data", "tiny.yaml", "--samples", "samples", "--sheet", "sheet.png")
    images = sorted((home / "samples").glob("*.png"))
    assert images
    predicted = passed(home, "predict", run / "best", *images, "--json", "--top", "2")
    assert len(json.loads(predicted)) == len(images)
    passed(home, "export", run, "out", "--with-shared")
    evaluated = json.loads(passed(home, "evaluate", "out", "tiny.yaml", "--json"))
    first = results(home, run)["winner"]["test"]["accuracy"]["values"][0]
    assert evaluated["metrics"]["accuracy"] == pytest.approx(first)


@pytest.mark.slow
def test_a_finished_run_is_tracked_with_its_answer(home, finished):
    from mlflow.tracking import MlflowClient

    run, _ = finished
    uri = f"sqlite:///{home / 'mlflow.db'}"
    done = gsfl_tune(home, "track", run, "--mlflow", uri, "--tensorboard")
    assert done.returncode == 0, done.stderr
    assert "MLflow: 10 trials are up to date" in done.stdout
    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    (parent,) = [each for each in runs if "mlflow.parentRunId" not in each.data.tags]
    assert len(runs) == 11
    assert parent.info.status == "FINISHED"
    found = results(home, run)
    for prefix, side in (("", "winner"), ("control/", "control")):
        mean = found[side]["test"]["accuracy"]["mean"]
        assert parent.data.metrics[f"{prefix}test/accuracy"] == pytest.approx(mean)
    kept = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert kept == {"experiment.yaml", "results.json"}


def test_a_run_is_not_begun_twice(home, finished):
    again = gsfl_tune(home, "search", "tiny.yaml")
    assert again.returncode == 2
    assert "--resume" in again.stderr
    assert "Traceback" not in again.stderr


def test_resuming_a_finished_run_changes_nothing(home, finished):
    run, _ = finished
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    again = gsfl_tune(home, "search", "tiny.yaml", "--resume")
    assert again.returncode == 0, again.stderr
    after = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    before.pop(run / ".lock", None)
    after.pop(run / ".lock", None)
    assert before == after


@pytest.mark.parametrize("trials", ["5", "6"])
def test_a_changed_space_is_refused_with_the_difference(home, finished, trials):
    run, _ = finished
    before = (run / "experiment.yaml").read_text(), (run / "results.json").read_text()
    done = gsfl_tune(
        home, "search", "tiny.yaml", "--resume", "--trials", trials, "--set", "model.dropout=0.4"
    )
    assert done.returncode == 2
    assert "model.dropout" in done.stderr
    assert "0.4" in done.stderr
    after = (run / "experiment.yaml").read_text(), (run / "results.json").read_text()
    assert after == before


@pytest.mark.parametrize(
    ("how", "slots"),
    [
        pytest.param(signal.SIGKILL, 1, id="kill -9"),
        pytest.param(signal.SIGKILL, 2, id="kill -9 of two at a time", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 2, id="ctrl-c", marks=pytest.mark.slow),
    ],
)
def test_a_search_that_dies_is_resumed_and_loses_nothing(home, how, slots):
    run = home / "runs" / f"dies-{how.name}-{slots}"
    arguments = ["search", "tiny.yaml", "--run-dir", run, "--set", "search.control=off"]
    arguments += ["--set", "training.head.epochs=60", "--trials", "6"]
    arguments += ["--set", "search.scheduler.grace=20", "--set", "search.finalists=1"]
    arguments += ["--set", "search.final_seeds=1", "--set", f"search.max_concurrent={slots}"]
    driver = subprocess.Popen(
        command(home, *arguments),
        cwd=home,
        env=environment(home),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

    def has_finished() -> bool:
        return (run / "study.journal").exists() and any(
            trial.state.is_finished() for study in studies(run).values() for trial in study.trials
        )

    wait_until(has_finished, "a trial has finished", timeout=400, every=0.2, process=driver)
    assert driver.poll() is None, "the search ended before it could be stopped"
    os.kill(driver.pid, how)
    code = driver.wait(timeout=60)
    assert code == (3 if how == signal.SIGINT else -signal.SIGKILL)
    before = {t.number: t for t in studies(run)["search"].trials if t.state.is_finished()}
    assert before
    epochs = {n: (run / f"trials/{n}/epochs.jsonl").read_text() for n in before}

    resumed = gsfl_tune(home, *arguments, "--resume")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    after = {trial.number: trial for trial in studies(run)["search"].trials}
    assert len(after) == 6
    assert all(trial.state.is_finished() for trial in after.values())
    for number, trial in before.items():
        assert (after[number].state, after[number].values) == (trial.state, trial.values)
        assert (run / f"trials/{number}/epochs.jsonl").read_text() == epochs[number]


@pytest.mark.slow
def test_asha_compares_across_both_stages(home, finished):
    run = home / "runs" / "both"
    changes = {
        "training.finetune.epochs": 2,
        "training.finetune.blocks": 1,
        "training.finetune.learning_rate": "{float: [1e-5, 1e-2], log: true}",
        "training.head.epochs": 3,
        "search.control": "off",
        "search.final_seeds": 1,
        "search.finalists": 1,
        "search.scheduler.grace": 1,
        "search.scheduler.reduction": 2,
    }
    words = [word for path, value in changes.items() for word in ("--set", f"{path}={value}")]
    done = gsfl_tune(home, "search", "tiny.yaml", "--run-dir", run, "--trials", "6", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    search = studies(run)["search"]
    # Head: epochs 1, 2, 3; finetune: 1, 2.
    for trial in search.get_trials(states=[optuna.trial.TrialState.COMPLETE]):
        assert sorted(trial.intermediate_values) == [0, 1, 2, 3, 4]
        records = (run / f"trials/{trial.number}/epochs.jsonl").read_text().splitlines()
        stages = [json.loads(record)["stage"] for record in records]
        assert stages == ["head"] * 3 + ["finetune"] * 2
    for trial in search.get_trials(states=[optuna.trial.TrialState.PRUNED]):
        assert 0 < len(trial.intermediate_values) < 5


@pytest.mark.slow
def test_more_trials_continue_a_finished_run(home, finished):
    run = home / "runs" / "more"
    arguments = ["search", "tiny.yaml", "--run-dir", run, "--set", "search.final_seeds=1"]
    arguments += ["--set", "search.control=matched", "--set", "training.head.epochs=2"]
    assert gsfl_tune(home, *arguments, "--trials", "3").returncode == 0
    first = results(home, run)
    assert first["control"]["kind"] == "matched"
    assert gsfl_tune(home, *arguments, "--trials", "5", "--resume").returncode == 0
    assert sum(results(home, run)["trials"].values()) == 5


@pytest.mark.slow
def test_the_bundle_cuts_images_as_the_winner_was_trained(home, finished):
    """The search chose how images become squares; projection and bundle must follow."""
    from gsfl_tune import load_bundle
    from gsfl_tune.data import prepare
    from gsfl_tune.experiment.config import Config

    run = home / "runs" / "fit"
    folder = home / "wide"
    generator = np.random.default_rng(0)
    for label in range(3):
        (folder / f"class{label}").mkdir(parents=True)
        for number in range(12):
            pixels = generator.integers(0, 80, (40, 90, 3)) + 60 * label
            image = Image.fromarray(pixels.astype(np.uint8))
            image.save(folder / f"class{label}" / f"{number}.png")
    changes = {
        "data.source": "folder",
        "data.path": str(folder),
        "data.image_size": 64,
        "data.fit": "{choice: [crop, squash]}",
        "model.pooling": "bilinear",
        "model.pooling_channels": 6,
        "model.groups.count": 1,
        "search.enqueue": "[{data.fit: squash}]",
        "search.control": "off",
        "search.finalists": 1,
        "search.final_seeds": 1,
        "search.metric": "validation/nll",
    }
    words = [word for path, value in changes.items() for word in ("--set", f"{path}={value}")]
    done = gsfl_tune(home, "search", "tiny.yaml", "--run-dir", run, "--trials", "1", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    winner = results(home, run)["winner"]
    assert winner["config"]["data"]["fit"] == "squash"
    config = Config.model_validate(winner["config"])
    dataset = prepare(config.data, cache_dir=home / "cache")
    metrics = load_bundle(run / "best", device="cpu").evaluate(dataset.test)
    after = winner["calibration"]["after"]
    assert metrics["nll"] == pytest.approx(after["nll"]["values"][0], rel=1e-3)
