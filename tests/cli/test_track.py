"""``gsfl-tune track`` and the trackers of ``search``: what they refuse."""

from __future__ import annotations

from gsfl_tune.run import RunDirectory, write_json


def test_nothing_to_do_is_bad_input(command, under_way):
    answer = command("track", under_way)
    assert answer.code == 2
    assert "--tensorboard" in answer.err


def test_what_is_no_run_is_bad_input(command, tmp_path):
    answer = command("track", tmp_path / "nothing", "--tensorboard")
    assert answer.code == 2
    assert "no such run directory" in answer.err
    assert not (tmp_path / "nothing").exists()


def test_a_uri_that_is_none_is_bad_input_before_anything_is_written(command, begun, tmp_path):
    write_json(RunDirectory(begun).manifest_file, {"format": 1, "seconds": {}})
    answer = command("track", begun, "--mlflow", "mlruns")
    assert answer.code == 2
    assert "not a tracking URI" in answer.err
    run = tmp_path / "run"
    for option, value, message in (
        ("--mlflow", "ftp://host", "not a tracking URI"),
        ("--metrics", "here", "--metrics here: allowed PORT or HOST:PORT"),
        ("--traces", "collector", "--traces collector: allowed http://HOST:4318"),
    ):
        answer = command("search", begun / "experiment.yaml", "--run-dir", run, option, value)
        assert answer.code == 2
        assert message in answer.err
        assert not run.exists()


def test_a_server_that_does_not_answer_is_a_failure_in_one_line(command, begun, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    write_json(RunDirectory(begun).manifest_file, {"format": 1, "seconds": {}})
    answer = command("track", begun, "--mlflow", "http://me:hunter2@127.0.0.1:9")
    assert answer.code == 1
    assert answer.err.startswith("MLflow: ")
    assert len(answer.err.splitlines()) == 1
    assert "hunter2" not in answer.err


def test_a_run_that_cannot_be_written_is_a_failure_in_one_line(command, begun):
    run = RunDirectory(begun)
    write_json(run.manifest_file, {"format": 1, "seconds": {}})
    # In the place of what it writes there is something else.
    run.tensorboard.touch()
    answer = command("track", begun, "--tensorboard")
    assert answer.code == 1
    assert len(answer.err.splitlines()) == 1
    run.lock_file.unlink()
    run.lock_file.mkdir()
    for words in (["--tensorboard"], ["--mlflow", f"sqlite:///{begun}/mlflow.db"]):
        answer = command("track", begun, *words)
        assert answer.code == 2
        (line,) = answer.err.splitlines()
        assert line.startswith(f"{run.lock_file}: cannot be written (Is a directory), allowed is")
