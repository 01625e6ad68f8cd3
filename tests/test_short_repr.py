"""What public functions return fits in a line of a notebook, whatever it holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gsfl_tune import compare_runs, find_runs
from gsfl_tune.adaptation.report import Adapted, Judged
from gsfl_tune.adaptation.settings import Settings
from gsfl_tune.export import Prediction
from tests.runs.made import answers, finished_run

NAMES = [f"a class with quite a long name, number {n}" for n in range(200)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("r")
    for seed, name in enumerate("ab"):
        finished_run(root / name, answers(seed))
    finished_run(root / "c", answers(2), data="other", test="other")
    return root


def judged() -> Judged:
    scores = np.eye(4)[np.arange(60) % 4]
    wrong = np.roll(scores, 1, axis=1)
    return Judged.of(wrong, scores, np.arange(60) % 4, 0)


def adapted(with_judge: bool) -> Adapted:
    records = [{"changed": 0.0, "counts": [1] * 200}, {"changed": 0.5, "counts": [1] * 200}]
    judge = judged() if with_judge else None
    return Adapted(Path("out"), "best", 9, "0" * 32, [], NAMES, Settings(), records, judge)


MADE = {
    "a run": (
        lambda root: find_runs(root)[0],
        "RunSummary('{root}/",
        "', finished, 30 trials, best ",
        " %, test 72.3 %)",
    ),
    "a pair": (
        lambda root: compare_runs([root / "a", root / "b"]).pairs[0],
        "Pair(b minus a, ",
        " points (",
        "), 60 images)",
    ),
    "a refused pair": (
        lambda root: compare_runs([root / "a", root / "c"]).pairs[0],
        "Pair(c and a, refused)",
    ),
    "what was judged": (lambda _: judged(), "Judged(0.0 % before, 100.0 % after, 60 images)"),
    "an adaptation": (lambda _: adapted(False), "Adapted('out', from 'best', 9 images)"),
    "a judged one": (
        lambda _: adapted(True),
        "Adapted('out', from 'best', 9 images, Judged(0.0 % before, 100.0 % after, 60 images))",
    ),
    "a prediction": (
        lambda _: Prediction("a.jpg", NAMES, [1 / 3] * 200),
        "Prediction('a.jpg', a class with quite a long name, number 0 33.3 %, 199 more)",
    ),
    "an unknown image": (
        lambda _: Prediction("a.jpg", ["gull"], [0.3], unknown=True),
        "Prediction('a.jpg', unknown: gull 30.0 %)",
    ),
}


@pytest.mark.parametrize("what", MADE)
def test_it_is_short_and_says_what_matters(runs, what):
    make, *expected = MADE[what]
    text = repr(make(runs))
    assert len(text) < 200
    assert "\n" not in text
    for each in expected:
        assert each.format(root=runs) in text
