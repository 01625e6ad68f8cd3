"""Values that were not active or had no effect, and steps just missed, are shown nowhere."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pandas
import pytest
from mlflow.tracking import MlflowClient
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2

from gsfl_tune.report import trials as report_trials
from gsfl_tune.run import RunDirectory, StudyName, write_json, write_text
from gsfl_tune.search import Progress, Study, choose_finalists, open_study, write_trials
from gsfl_tune.search.observers.tracking import open_trackers, track_run, write_tensorboard
from gsfl_tune.search.observers.trials_parquet import TrialTable
from tests.search.experiments import experiment

ALTERNATIVES = (
    "training.head.optimizer={choice: [adamw, sgd]}",
    "training.head.learning_rate=[{float: [0.001, 0.01], when: {training.head.optimizer: adamw}},"
    " {float: [0.1, 1], when: {training.head.optimizer: sgd}}]",
    "model.dropout={float: [0, 0.6], step: 0.1}",
    "training.finetune.epochs=1",
    "training.finetune.blocks={choice: [all, 1, 2]}",
    # It needs a head of GSFL-Net, and the file does not say so.
    "loss.reconstruction={float: [0, 1]}",
)
# As a sampler of a fixed space draws them.
DRAWN: dict[str, Any] = {
    "model.head": "plain",
    "model.latent_dim": 8,
    "model.dropout": 0.1 * 3,
    "model.groups.count": 4,
    "training.head.optimizer": "adamw",
    "training.head.learning_rate@0": 0.002,
    "training.head.learning_rate@1": 0.5,
    "training.finetune.blocks": 2,
    "loss.reconstruction": 0.5,
}
SHOWN = {
    "model.head": "plain",
    "model.latent_dim": 8,
    "model.dropout": 0.3,
    "training.head.optimizer": "adamw",
    "training.head.learning_rate@0": 0.002,
    "training.finetune.blocks": 2,
}
# Words where some choices are: the type of a column does not depend on what was drawn.
IN_TABLE = {**SHOWN, "training.finetune.blocks": "2"}


@pytest.fixture
def study(run: RunDirectory) -> Study:
    """One complete trial with everything drawn."""
    tried = experiment(*ALTERNATIVES)
    write_text(run.experiment_file, tried.to_yaml())
    write_json(run.manifest_file, {"format": 1, "seconds": {}})
    return _with_a_trial(run, "search")


def _with_a_trial(run: RunDirectory, name: StudyName, *overrides: str) -> Study:
    study = open_study(experiment(*ALTERNATIVES, *overrides), run, name)
    study.recreate({key: DRAWN[key] for key in study._distributions})
    log = run.trial(name, 0) / "epochs.jsonl"
    log.parent.mkdir(parents=True)
    log.write_text('{"epoch": 1, "stage": "head", "validation/nll": 2.5, "seconds": 0.5}\n')
    study.complete(0, 2.5, 0)
    return study


def _in_table(run: RunDirectory, study: str = "search") -> dict[str, Any]:
    table = pandas.read_parquet(run.trials_parquet)
    (row,) = table[table.study == study].to_dict("records")
    found = {name: value for name, value in row.items() if name.startswith("params.")}
    return {
        name.removeprefix("params."): value
        for name, value in found.items()
        if not pandas.isna(value)
    }


def test_in_the_table_of_trials_and_what_the_report_makes_of_it(
    run: RunDirectory, study: Study
) -> None:
    write_trials(run)
    assert _in_table(run) == IN_TABLE
    table = pandas.read_parquet(run.trials_parquet)
    (record,) = report_trials.trial_records(table, lambda study, number: report_trials.Curve())
    assert record.params == IN_TABLE
    written = TrialTable(run, study)
    written.begin(study, None, 1)
    assert _in_table(run) == IN_TABLE


def test_in_the_table_for_a_control_whose_head_is_given(run: RunDirectory, study: Study) -> None:
    control = _with_a_trial(run, "control", "model.head=plain")
    write_trials(run)
    expected = {name: value for name, value in IN_TABLE.items() if name != "model.head"}
    assert _in_table(run, "control") == expected
    # Also while the control's own search runs, of which the other study knows by its files.
    written = TrialTable(run, control)
    written.begin(control, None, 1)
    assert _in_table(run) == IN_TABLE


def test_for_a_tracker_the_alternative_that_was_active_has_the_plain_name(
    run: RunDirectory, study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = f"sqlite:///{tmp_path / 'mlflow.db'}"
    track_run(run, open_trackers(mlflow=place))
    client = MlflowClient(place)
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])  # type: ignore[union-attr]
    (params,) = [each.data.params for each in runs if each.data.tags.get("gsfl_tune.trial")]
    expected = {name.partition("@")[0]: str(value) for name, value in SHOWN.items()}
    assert params == expected


def test_in_tensorboard_and_words_among_numbers_are_words_everywhere(
    run: RunDirectory, study: Study
) -> None:
    folder = write_tensorboard(run)
    session = _hparams(folder / "trials" / "0", "session_start_info").hparams
    found = {
        name: value.string_value if value.HasField("string_value") else value.number_value
        for name, value in session.items()
    }
    assert found == IN_TABLE
    infos = _hparams(folder, "experiment").hparam_infos
    (blocks,) = [info for info in infos if info.name == "training.finetune.blocks"]
    assert blocks.type == api_pb2.DATA_TYPE_STRING
    assert list(blocks.domain_discrete) == ["all", "1", "2"]


def _hparams(folder: Path, kind: str) -> Any:
    events = EventAccumulator(str(folder))
    events.Reload()
    content = events.SummaryMetadata(f"_hparams_/{kind}").plugin_data.content
    return getattr(plugin_data_pb2.HParamsPluginData.FromString(content), kind)


def test_on_the_terminal_and_among_finalists(study: Study) -> None:
    screen = io.StringIO()
    progress = Progress(Console(file=screen, width=100))
    progress.begin(study, 4, 1)
    progress.finish(interrupted=False)
    text = screen.getvalue()
    assert "model.dropout: 0.3\n" in text
    assert "learning_rate@1" not in text
    assert "groups.count" not in text
    assert "reconstruction" not in text
    study.recreate({**DRAWN, "model.dropout": 0.3, "training.head.learning_rate@1": 0.7})
    study.complete(1, 2.6, 0)
    study.recreate({**DRAWN, "model.dropout": 0.3, "loss.reconstruction": 0.1})
    study.complete(2, 2.7, 0)
    assert [trial.number for trial in choose_finalists(study, 2)] == [0]
