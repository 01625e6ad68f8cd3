"""The process that proposes ahead answers line by line, as the driver itself would propose."""

from __future__ import annotations

import json
import subprocess
import sys
from io import StringIO
from typing import Any

import pytest

from gsfl_tune.run import RunDirectory
from gsfl_tune.search import Study, open_study
from gsfl_tune.search.study.prefetch_process import serve
from tests.search.experiments import experiment

TRIED = experiment("search.sampler.startup_trials=2")


@pytest.fixture
def study(run: RunDirectory) -> Study:
    """Four trials have ended: TPE has what it needs."""
    study = open_study(TRIED, run)
    for _ in range(4):
        _end_next(study)
    return study


def _end_next(study: Study) -> dict[str, Any]:
    asked = study.ask()
    assert asked is not None
    study.complete(asked.number, float(asked.params["model.dropout"]) + asked.number / 100)
    return asked.params


def _answers(run: RunDirectory, *questions: dict[str, Any], **greeting: str) -> list[Any]:
    known = {"experiment": TRIED.to_yaml(), "journal": str(run.journal), "study": "search"}
    lines = [json.dumps(line) + "\n" for line in ({**known, **greeting}, *questions)]
    answers = StringIO()
    serve(StringIO("".join(lines)), answers)
    return [json.loads(line) for line in answers.getvalue().splitlines()]


def test_it_answers_what_the_driver_would_have_proposed(study: Study, run: RunDirectory) -> None:
    before = run.journal.read_bytes()
    (answer,) = _answers(run, {"number": 4, "until": len(before)})
    assert run.journal.read_bytes() == before
    assert answer == {"number": 4, "params": _end_next(study)}
    (following,) = _answers(run, {"number": 5, "until": run.journal.stat().st_size})
    assert following == {"number": 5, "params": _end_next(study)}


def test_what_the_journal_got_later_does_not_count(study: Study, run: RunDirectory) -> None:
    until = run.journal.stat().st_size
    question = {"number": 4, "until": until}
    before = _answers(run, question)
    study.enqueue(before[0]["params"], "enqueue[0]")
    _end_next(study)
    assert _answers(run, question) == before
    # With the later trial known, its configuration is not proposed again.
    (after,) = _answers(run, {"number": 4, "until": run.journal.stat().st_size})
    assert after["params"] != before[0]["params"]


def test_what_goes_wrong_is_an_answer_and_the_next_question_is_heard(
    study: Study, run: RunDirectory
) -> None:
    until = run.journal.stat().st_size
    bad, good = _answers(run, {"number": 4, "until": until, "x": 1}, {"number": 4, "until": until})
    assert "TypeError" in bad["error"]
    assert good["number"] == 4
    (unknown,) = _answers(run, {"number": 4, "until": until}, study="control")
    assert "KeyError" in unknown["error"]


def test_the_process_imports_neither_torch_nor_ray() -> None:
    code = (
        "import sys, gsfl_tune.search.study.prefetch_process\n"
        "print(sorted({'torch', 'ray', 'timm', 'pandas', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
