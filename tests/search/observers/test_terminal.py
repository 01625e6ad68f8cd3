from __future__ import annotations

import io
import re
from pathlib import Path

import pandas
import pytest
from rich.console import Console

from gsfl_tune.activity import Activity, activity, begin, display, end
from gsfl_tune.run import EpochLog, RunDirectory
from gsfl_tune.search import Progress, Study, open_study, write_trials
from gsfl_tune.search.observers.base import Said
from gsfl_tune.search.ray_tune.worker_losses import failure
from tests.search.experiments import experiment
from tests.waiting import wait_until


def _played(run: RunDirectory, progress: Progress) -> Study:
    """A study of six trials, as the searcher tells of it."""
    study = open_study(experiment(), run)
    progress.begin(study, 6, 2)
    progress.notice("published: model.latent_dim: 4096 is used as 32")
    values = [2.5, 2.0, 3.0, 1.5]
    for number, value in enumerate(values):
        asked = study.ask()
        assert asked is not None
        progress.started(number, asked.params, again=False)
        if number == 2:
            study.prune(number, value, 0)
        else:
            study.complete(number, value, 2)
        progress.ended(number)
    study.ask()
    study.fail(4, "RuntimeError: the GPU is on fire")
    progress.ended(4)
    asked = study.ask()
    assert asked is not None
    progress.started(asked.number, asked.params, again=False)
    return study


def test_plain_lines_one_per_event(run: RunDirectory) -> None:
    output = io.StringIO()
    progress = Progress(Console(file=output, width=200, highlight=False))
    _played(run, progress)
    progress.finish(interrupted=False)
    lines = output.getvalue().splitlines()
    assert lines[0] == "search: 6 trials, 2 at once"
    assert lines[2].startswith("trial 0 complete, validation/nll 2.5000 (best so far) [1/6, ")
    assert lines[4].startswith("trial 2 pruned at rung 0, validation/nll 3.0000 [3/6, ")
    assert "(best so far)" in lines[5]
    assert lines[6].startswith("trial 4 failed: RuntimeError: the GPU is on fire [5/6, ")
    assert lines[7] == "search: 3 done, 1 running, 1 pruned, 1 failed"
    assert lines[8] == "best: trial 3, validation/nll 1.5000"
    assert any(line.startswith("  model.dropout: ") for line in lines[9:])
    assert "\x1b" not in output.getvalue()


def test_a_live_table_that_fits_into_80_columns(run: RunDirectory) -> None:
    output = io.StringIO()
    console = Console(file=output, width=80, force_terminal=True, color_system=None)
    progress = Progress(console)
    _played(run, progress)
    plain = Console(file=io.StringIO(), width=80, record=True)
    plain.print(progress.frame())
    frame = plain.export_text()
    progress.finish(interrupted=True)
    assert all(len(line) <= 80 for line in frame.splitlines())
    assert "5/6" in frame
    assert "3 done   1 running   1 pruned   1 failed" in frame
    assert "best 1.5000 validation/nll, trial 3" in frame
    for name in ("model.head", "model.dropout", "training.head.learning_rate"):
        assert name in frame
    assert "interrupted" in output.getvalue()


def test_what_trials_do_is_said_when_nothing_else_was(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(display, "QUIET_SECONDS", 0.3)
    output = io.StringIO()
    progress = Progress(Console(file=output, width=200, highlight=False, soft_wrap=True))
    said = {
        f"trial {number}": Said(f"finetune epoch 3/8: {number}/43 batches") for number in (5, 6)
    }
    progress.hears(lambda: {**said, "trial 7": None, "trial 8": None})
    progress.expects(lambda: 75.0)
    with progress:
        with activity("starting Ray on this machine"):
            wait_until(lambda: "starting Ray" in output.getvalue(), "the start is shown")
        _played(run, progress)
        wait_until(lambda: "batches" in output.getvalue(), "the batches are shown")
        one = begin(Activity("asked to stop", urgent=True))
        wait_until(lambda: "asked to stop" in output.getvalue(), "the stop is shown")
        end(one)
        progress.finish(interrupted=True)
    lines = output.getvalue().splitlines()
    [line] = [line for line in lines if line.startswith("search 5/6")][:1]
    assert re.fullmatch(
        r"search 5/6, 0:0\d, about 1:1\d left; trial 5: finetune epoch 3/8: 5/43 batches; "
        r"trial 6: finetune epoch 3/8: 6/43 batches; and 2 more",
        line,
    )
    # What is urgent, with those that are waited for.
    [line] = [line for line in lines if line.startswith("asked to stop")][:1]
    assert "; trial 5: finetune epoch 3/8" in line


def test_in_a_terminal_every_trial_has_a_row_that_does_not_wrap(run: RunDirectory) -> None:
    output = io.StringIO()
    console = Console(file=output, width=80, force_terminal=True, color_system=None)
    progress = Progress(console)
    said = {f"trial {number}": Said("computing features " * 9) for number in range(20)}
    progress.hears(lambda: said)
    with progress:
        _played(run, progress)
        rows = progress.display.lines()
        progress.display.refresh()
        progress.finish(interrupted=False)
    assert len(rows) == 8
    assert rows[-1].strip() == "and 13 more"
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", output.getvalue()).replace("\r", "\n")
    assert max(len(line) for line in plain.splitlines()) <= 80


def test_a_study_that_breaks_leaves_nothing_that_is_redrawn(run: RunDirectory) -> None:
    progress = Progress(Console(file=io.StringIO(), width=80, force_terminal=True))

    def broken() -> None:
        with progress:
            _played(run, progress)
            raise ValueError

    with pytest.raises(ValueError):
        broken()
    assert progress.display._live is None
    assert progress.display._thread is None


def test_retrains_are_counted(run: RunDirectory) -> None:
    output = io.StringIO()
    progress = Progress(Console(file=output, width=200, highlight=False))
    progress.jobs_begin("retraining", 3, 1)
    progress.job_ended("winner, seed 1", {"validation": {}})
    progress.job_ended("winner, seed 2", {"failed": "non-finite train/loss"})
    progress.jobs_finish(interrupted=False)
    lines = output.getvalue().splitlines()
    assert lines[0] == "retraining: 3 trainings, 1 done before"
    assert lines[1].startswith("winner, seed 1 done [2/3")
    assert lines[2] == "winner, seed 2 failed: non-finite train/loss"


def test_the_table_is_derived_from_journal_and_epochs(run: RunDirectory) -> None:
    _played(run, Progress(Console(file=io.StringIO())))
    log = EpochLog(run.trial("search", 1) / "epochs.jsonl")
    log.append({"epoch": 1, "stage": "head", "validation/nll": 2.5, "seconds": 1.0})
    log.append({"epoch": 2, "stage": "head", "validation/nll": 2.0, "seconds": 1.5})
    control = open_study(experiment().fixed({"model.head": "plain"}), run, "control")
    control.ask()
    # It can be thrown away at any time.
    write_trials(run)
    table = pandas.read_parquet(run.trials_parquet).set_index(["study", "number"])
    assert len(table) == 7
    row = table.loc[("search", 1)]
    assert (row["state"], row["value"], row["epochs"], row["seconds"]) == ("COMPLETE", 2.0, 2, 2.5)
    assert row["validation/nll"] == 2.0
    assert table.loc[("search", 4), "reason"] == "RuntimeError: the GPU is on fire"
    assert table.loc[("control", 0), "state"] == "RUNNING"
    assert pandas.isna(table.loc[("control", 0), "value"])


def test_columns_of_mixed_values_become_text(run: RunDirectory) -> None:
    mixed = experiment(
        "training.finetune.blocks={choice: [all, 1, 2]}", "training.finetune.epochs=1"
    )
    study = open_study(mixed, run)
    for _ in range(6):
        study.ask()
    write_trials(run)
    column = pandas.read_parquet(run.trials_parquet)["params.training.finetune.blocks"]
    assert set(column) <= {"all", "1", "2"}


def test_the_reason_of_a_crash_is_its_last_line(tmp_path: Path) -> None:
    python = (
        "Failure # 1 (occurred at 2026-11-21_21-00-00)\nray::Trainable.train() (pid=1)\n"
        "ValueError: old\n"
        "Failure # 2 (occurred at 2026-11-21_21-00-09)\n\x1b[36mray::Trainable.train()\x1b[39m\n"
        '  File "x.py", line 1, in step\n    raise RuntimeError("boom")\nRuntimeError: boom\n'
    )
    assert failure(python).reason == "RuntimeError: boom"
    died = "Failure # 1 (occurred at t)\nThe actor died unexpectedly before finishing this task.\n"
    assert failure(died).reason.startswith("the worker process died")
    assert failure("").reason == "the worker process died"
