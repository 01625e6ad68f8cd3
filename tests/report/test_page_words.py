"""What the page says beside its numbers holds for the run at hand."""

from __future__ import annotations

import json

import pytest

from gsfl_tune.report.files import read_run
from gsfl_tune.report.page import render
from gsfl_tune.run import read_json, write_json
from tests.report.runs import RunMaker
from tests.report.test_page import page_of


@pytest.mark.parametrize(
    ("params", "edge"),
    [
        ({"model.dropout": 0.0}, ""),  # there is no dropout below 0
        ({"model.dropout": 0.69}, "upper end"),
        ({"model.groups.count": 1}, ""),
        ({"model.groups.count": 10}, "upper end"),
        ({"training.head.learning_rate": 1.0e-4}, "lower end"),
        ({"training.head.learning_rate": 1.0e-3}, ""),
        ({"model.groups.method": "random"}, ""),
    ],
)
def test_a_value_at_the_end_of_a_range_that_could_go_on_is_pointed_out(tmp_path, params, edge):
    maker = RunMaker(tmp_path / "run").begin().finish()
    content = json.loads(maker.run.results_file.read_text())
    content["winner"]["params"] = params
    maker.run.results_file.write_text(json.dumps(content))
    settings = page_of(maker.path).text("settings")
    assert edge in settings
    assert (" end" in settings) == bool(edge)


def test_what_an_interval_covers_is_said_as_it_is(tmp_path):
    several = RunMaker(tmp_path / "several").begin().search(12).finish()
    single = RunMaker(tmp_path / "single").begin().search(12).finish(seeds=1)
    assert "is over seeds and test images." in page_of(several.path).text("fig-models")
    told = page_of(single.path).text("fig-models")
    assert "over seeds" not in told
    assert "over the test images alone: what another seed would change is not known" in told


@pytest.mark.parametrize(
    ("head", "groups", "probes"),
    [
        ("linear", "no groups: its head is linear", "has a linear head: without groups"),
        ("fsdg", "trained with groups, which serve the loss of its fsdg head alone", "fsdg head:"),
    ],
)
def test_a_winner_without_a_shared_part_is_not_called_plain(tmp_path, head, groups, probes):
    maker = RunMaker(tmp_path / "run", groups=0).begin().search(12).finish()
    maker.evidence(probes=None, swap=None, group_errors=None)
    results = read_json(maker.run.results_file)
    results["winner"]["config"]["model"]["head"] = head
    write_json(maker.run.results_file, results)
    page = page_of(maker.path)
    assert groups in page.text("fig-groups")
    for figure in ("fig-probes", "fig-swap", "fig-errors"):
        assert probes in page.text(figure)
        assert "an older version" not in page.text(figure)


def test_captions_say_which_numbers_have_the_temperature_and_which_pairs_were_swapped(tmp_path):
    maker = RunMaker(tmp_path / "run").begin().search(12).finish().evidence()
    page = render(read_run(maker.path))
    assert "The confidences of wrong test images are with it too" in page
    assert "the tables of this page do not use it" not in page
    # 500 pairs of two kinds: each rate is of one of them.
    assert "71.0 % of the pairs from two groups (chance 33.0 %)" in page
    assert "44.0 % of the pairs from one group (chance 8.0 %)" in page
