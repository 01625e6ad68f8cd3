"""The page of splits can be made again from the log that is published with it."""

from __future__ import annotations

import importlib
import json
import sys

import pytest

from tests.benchmarks.test_scripts import BENCHMARKS, RESULTS


@pytest.fixture
def splits(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    return importlib.import_module("splits")


def test_the_published_page_follows_from_the_log(splits):
    published = (RESULTS / "splits.md").read_text()
    assert splits.page(8) in published


def test_searches_that_are_not_whole_are_left_out(splits, monkeypatch, tmp_path):
    """Search 1 lacks a configuration, and search 2 the test of the one it takes."""
    rows = []
    for search in range(4):
        for kind in splits.KINDS:
            for number in range(3):
                if (search, kind, number) != (1, "auto", 2):
                    right = 0.5 + 0.1 * (number == (2 if kind == "auto" else 1))
                    rows.append({"kind": kind, "number": number, "validation": right})
                    rows[-1]["search"] = search
        for number in (1, 2) if search != 2 else (1,):
            test = 0.7 + 0.01 * number + 0.01 * search * (number == 2)
            rows.append({"kind": "test", "number": number, "test": test, "search": search})
    # Better ones that a longer search has tried and not tested.
    rows.append({"kind": "image", "number": 3, "validation": 0.9, "search": 0})
    log = tmp_path / "splits.jsonl"
    log.write_text("".join(json.dumps({"data": "grocery", **row}) + "\n" for row in rows))
    monkeypatch.setattr(splits, "LOG", log)
    text = splits.searches(splits.rows(), 3, 2)
    # Searches 0 and 3: 71 % each, and 72 % and 75 %.
    assert text.startswith("2 searches, each over 3 configurations")
    assert "has 71.00% on the test part" in text
    assert "73.50% with `auto`: +2.50 points" in text
    # The size of a sample is fixed before: nothing is told of a part of it.
    for configurations, size, whole in ((4, 2, 0), (3, 3, 2)):
        told = splits.searches(splits.rows(), configurations, size)
        assert told == (
            f"Another sample of {size} searches over {configurations} configurations is being "
            f"measured: {whole} are whole."
        )
