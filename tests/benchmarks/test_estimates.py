"""What the page of the estimates says of searches that were not measured."""

from __future__ import annotations

import importlib
import sys

import pytest

from tests.benchmarks.test_scripts import BENCHMARKS


@pytest.fixture
def estimates(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    return importlib.import_module("estimates")


def test_a_page_names_the_searches_that_it_lacks(estimates):
    found = estimates.rows()
    names = [name for name, *_ in estimates.SEARCHES]
    text = estimates.page(found)
    assert f"{len(found)} of {len(names)} searches were measured." in text
    said = text.split("\n", 1)[0].partition("Not yet: ")[2].partition(".")[0]
    lacking = said.split("; ") if said else []
    assert sorted([*(row["name"] for row in found), *lacking]) == sorted(names)


def test_a_recorded_search_without_a_control_can_be_read_again(estimates, tmp_path):
    """YAML 1.1 reads `off` as a truth value."""
    forecast = sys.modules["forecast"]
    overrides = ["search.control=off", f"data.path={tmp_path}"]
    file = BENCHMARKS.parent / "search_spaces" / "frozen_head.yaml"
    text = forecast.Experiment.load(file, overrides=overrides).to_yaml()
    again = forecast.Experiment.parse(forecast._anywhere(text))
    assert again.defaults().search.control == "off"
