"""Ctrl-C: exit code 3 is for what can be resumed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gsfl_tune.cli import main
from gsfl_tune.run import RunDirectory, write_json
from gsfl_tune.run.manifest import FORMAT

SPACE = str(Path(__file__).parents[2] / "search_spaces" / "typefaces.yaml")


@pytest.fixture(autouse=True)
def _pressed_while_images_are_listed(tmp_path, monkeypatch):
    def pressed(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setenv("GSFL_TUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("gsfl_tune.data.preparation.create_source", pressed)


def test_before_there_is_a_run_nothing_can_be_resumed(tmp_path, capsys):
    assert main(["search", SPACE, "--run-dir", str(tmp_path / "run")]) == 1
    shown = capsys.readouterr()
    assert "interrupted" in shown.err
    assert "--resume" not in shown.out
    assert main(["data", SPACE]) == 1


def test_a_run_that_has_begun_can_be_resumed(tmp_path, capsys):
    run = RunDirectory(tmp_path / "run")
    write_json(run.manifest_file, {"format": FORMAT})
    assert main(["search", SPACE, "--run-dir", str(run.path), "--resume"]) == 3
    assert f"--run-dir {run.path} --resume" in capsys.readouterr().out


def test_sigterm_before_there_is_a_run_ends_in_a_word(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "gsfl_tune", "search", SPACE, "--run-dir", str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"GSFL_TUNE_CACHE": str(tmp_path / "cache")},
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.terminate()
    _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (1, "interrupted\n")


SWALLOWS = """\
import os, signal, time
try:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)
except:
    pass
"""
# Python prints what a callback raises, and drops it.
DROPPED = """\
import os, signal, time, weakref
class Gone:
    pass
gone = Gone()
kept = weakref.ref(gone, lambda _: (os.kill(os.getpid(), signal.SIGTERM), time.sleep(5)))
del gone
"""
PASSES_ON = 'exec("raise KeyboardInterrupt")\n'


@pytest.mark.parametrize(
    "code",
    [SWALLOWS, *(pytest.param(each, marks=pytest.mark.slow) for each in (DROPPED, PASSES_ON))],
    ids=["swallows", "dropped", "passes-on"],
)
def test_an_interrupt_while_a_library_is_imported_ends_the_search(tmp_path, code):
    """The library is a package that adds a metric: every file asks for it."""
    info = tmp_path / "site" / "my_metric-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-metric\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[gsfl_tune.metrics]\nmine = my_metric:Accuracy\n")
    (tmp_path / "site" / "my_metric.py").write_text(
        code
        + "from gsfl_tune.experiment.metrics import MetricOfPackage\n"
        + "class Accuracy(MetricOfPackage):\n"
        + "    direction = 'maximize'\n"
        + "    def of(self, logits, labels):\n"
        + "        return float((logits.argmax(1) == labels).mean())\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "gsfl_tune", "search", SPACE, "--run-dir", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ
        | {"GSFL_TUNE_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(tmp_path / "site")},
    )
    assert (done.returncode, done.stderr) == (1, "interrupted\n")
    assert not (tmp_path / "run").exists()
