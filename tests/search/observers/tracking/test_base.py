"""What trackers are told of a trial, and what a run remembers of its trackers."""

from __future__ import annotations

import json

from gsfl_tune.run import RunDirectory
from gsfl_tune.search import open_study
from gsfl_tune.search.observers.tracking import RunInfo, TrialRecord
from gsfl_tune.search.observers.tracking._base import memory, remember
from tests.search.experiments import experiment


def test_the_record_of_a_trial_is_what_the_study_knows(run: RunDirectory) -> None:
    tried = experiment()
    study = open_study(tried, run)
    plain = tried.default_params() | {"model.head": "plain", "model.groups.count": 2}
    study.enqueue(plain, "enqueue[0]")
    for _ in range(4):
        study.ask()
    study.complete(0, 2.5)
    study.prune(1, 4.0, 0)
    study.fail(2, "non-finite train/loss in epoch 2")
    records = [TrialRecord.of("search", trial, tried.space) for trial in study.trials()]
    assert [record.key for record in records] == [f"search-{number}" for number in range(4)]
    assert [record.state for record in records] == ["COMPLETE", "PRUNED", "FAIL", "RUNNING"]
    assert [record.done for record in records] == [True, True, True, False]
    # Optuna gives a pruned trial its last rung; only a complete one has an objective.
    assert [record.value for record in records] == [2.5, None, None, None]
    assert records[0].attributes == {"origin": "enqueue[0]"}
    assert records[2].attributes == {"reason": "non-finite train/loss in epoch 2"}
    # A plain head has no groups, whatever was enqueued.
    assert records[0].params["model.head"] == "plain"
    assert "model.groups.count" not in records[0].params
    assert records[0].started is not None
    assert records[0].finished is not None
    assert records[3].finished is None


def test_final_values_are_those_that_there_are() -> None:
    both = TrialRecord("search", 1, "COMPLETE", {}, value=0.5, others={"latency_ms": 3.0})
    assert both.final("validation/nll") == {"final/validation/nll": 0.5, "final/latency_ms": 3.0}
    one = TrialRecord("control", 12, "COMPLETE", {}, value=0.0)
    assert one.final("validation/nll") == {"final/validation/nll": 0.0}
    assert one.key == "control-12"
    assert TrialRecord("search", 2, "FAIL", {}).final("validation/nll") == {}


def test_a_run_keeps_its_id_and_two_runs_have_two(run: RunDirectory) -> None:
    run.path.mkdir()
    tried = experiment()
    first = RunInfo.of(run, tried)
    assert RunInfo.of(run, tried) == first
    assert (first.name, first.metric) == ("tiny", "validation/nll")
    other = RunDirectory(run.path.with_name("other"))
    other.path.mkdir()
    assert RunInfo.of(other, tried).id != first.id


def test_each_tracker_replaces_its_own_section_alone(run: RunDirectory) -> None:
    run.path.mkdir()
    known = memory(run)["id"]
    remember(run, "mlflow", {"run": "a", "old": 1})
    remember(run, "wandb", {"run": "b"})
    remember(run, "mlflow", {"run": "c"})
    expected = {"id": known, "mlflow": {"run": "c"}, "wandb": {"run": "b"}}
    assert memory(run) == expected
    assert json.loads(run.tracking_file.read_text()) == expected


def test_a_file_that_cannot_be_read_costs_what_it_held_and_no_run(run: RunDirectory) -> None:
    run.path.mkdir()
    for broken in ("{half", "[]", '{"id": 3}'):
        run.tracking_file.write_text(broken)
        found = memory(run)
        assert isinstance(found["id"], str)
        assert found["id"]
        assert memory(run) == found
