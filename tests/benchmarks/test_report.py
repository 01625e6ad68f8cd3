"""Pages of benchmarks: what a script writes, and what a person wrote below it."""

from __future__ import annotations

import importlib
import sys

import pytest

from tests.benchmarks.test_scripts import BENCHMARKS


@pytest.fixture
def report(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    found = importlib.import_module("_report")
    monkeypatch.setattr(found, "RESULTS", tmp_path / "results")
    return found


def test_a_page_that_is_made_anew_keeps_its_notes(report, tmp_path):
    file = tmp_path / "results" / "speed.md"
    report.publish("speed", "Speed", "1 s")
    first = file.read_text()
    assert first.startswith("# Speed\n")
    notes = f"\n{report.NOTES}\n\n## By hand\n\nIt rained.\n"
    file.write_text(first + notes)
    for _ in range(2):
        report.publish("speed", "Speed", "2 s")
        assert file.read_text() == first.replace("1 s", "2 s") + notes
