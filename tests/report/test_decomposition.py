"""The evidence in a terminal."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.report import load_results, print_results
from gsfl_tune.report.decomposition import load_evidence, print_evidence
from gsfl_tune.run import RunDirectory, write_json
from tests.report.runs import RunMaker
from tests.report.test_page import page_of

EVIDENCE = {
    "worst_tenth": {"mean": 0.25, "classes": ["gull", "tern", "auk", "skua", "noddy"]},
    "most_confused": [{"classes": ["gull", "tern"], "counts": [4, 2], "share": 0.1}],
    "group_errors": {"inside": 0.2, "across": 0.1, "share_inside": 0.667, "expected_inside": 0.3},
    "probes": {
        "chance": 0.125,
        "parts": [
            {
                "part": part,
                "groups": {"mean": mean, "std": 0.01},
                "random_groups": {"mean": 0.5, "std": 0.02},
            }
            for part, mean in (("f", 0.8), ("s", 0.9), ("d", 0.7), ("d of the control", 0.75))
        ],
    },
    "swap": {
        "pairs": 4000,
        "group_follows_shared": 0.9012,
        "group_follows_discriminative": 0.05,
        "unswapped_group": 0.95,
        "class_follows_discriminative": None,
        "chance_group": 0.13,
        "chance_class": None,
        "judge_accuracy": 0.71,
    },
}


def text_of(evidence) -> str:
    stream = io.StringIO()
    print_evidence(evidence, Console(file=stream, width=80, highlight=False))
    return stream.getvalue()


def test_shows_the_numbers_within_80_columns():
    text = text_of(EVIDENCE)
    assert max(map(len, text.splitlines())) <= 80
    flat = " ".join(text.split())
    assert "worst tenth of the classes: 25.0 % right (gull, tern, auk and 2 more)" in flat
    assert "inside the true class's group: 66.7 % (by chance 30.0 %)" in flat
    assert "gull / tern 6" in flat
    assert "shared part s 90.0 % ± 1.0 50.0 % ± 2.0" in flat
    assert "group, of pairs across groups 90.1 % 5.0 % 13.0 % 95.0 %" in flat
    assert "class, of pairs inside a group - - - -" in flat


def test_identical_runs_and_a_single_one_have_no_deviation():
    """ "± 0.0" would read as certainty. The bits of a mean may differ from equal numbers."""
    equal = [0.1, 0.1, 0.1]
    assert np.std(equal, ddof=1) > 0
    spreads = [0.0, float(np.std(equal, ddof=1)), 0.0003, 0.0006]
    rows = [
        {
            "part": name,
            "groups": {"mean": 0.8, "std": std},
            "random_groups": {"mean": 0.5, "std": 0},
        }
        for name, std in zip("fsde", spreads, strict=True)
    ]
    text = text_of({"probes": {"chance": 0.125, "parts": rows}})
    flat = " ".join(text.split())
    assert "feature f 80.0 % 50.0 %" in flat
    assert "shared part s 80.0 % 50.0 %" in flat
    assert "discriminative part d 80.0 % ± < 0.1 50.0 %" in flat
    assert "e 80.0 % ± 0.1 50.0 %" in flat
    assert "± 0.0" not in text


def test_names_of_parts_with_brackets_are_shown_as_they_are():
    row = {"found": 0.5, "overlap": 0.25, "shown": 12}
    rows = [{"part": name, **row} for name in ("wing [left]", "[/x]")]
    parts = {**row, "images": 40, "parts": rows}
    flat = " ".join(text_of({"parts": parts}).split())
    assert "wing [left] 50.0 % 25.0 % 12 [/x] 50.0 % 25.0 % 12" in flat


def test_what_could_not_be_computed_says_why():
    text = text_of({"swap": {"error": "ValueError: no decoder"}, "notes": ["no Grad-CAM: tiny"]})
    assert "swap: ValueError: no decoder" in text
    assert "no Grad-CAM: tiny" in text


def test_results_show_the_evidence_of_a_finished_run(finished):
    run = RunDirectory(finished)
    write_json(run.evidence_file, EVIDENCE)
    stream = io.StringIO()
    print_results(load_results(finished), Console(file=stream, width=80, highlight=False))
    assert "Swap test" in stream.getvalue()


def test_no_file_is_no_evidence_and_a_broken_one_an_error(tmp_path):
    assert load_evidence(tmp_path / "evidence.json") == {}
    (tmp_path / "evidence.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        load_evidence(tmp_path / "evidence.json")


@pytest.mark.parametrize(("std", "shown"), [(0.003, False), (0.0, False), (0.04, True)])
def test_a_deviation_that_rounds_to_nothing_is_not_shown(tmp_path, std, shown):
    maker = RunMaker(tmp_path / "run").begin().search().finish()
    maker.evidence(gradcam={"images": 96, "overlap": {"mean": 0.4, "std": std}})
    text = page_of(maker.path).text("fig-gradcam")
    assert "maps of the two parts is 0.40" in text
    assert ("±" in text) == shown
