"""Pages that name the test of every row: the tests exist, and no row is without one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Page, folder that its paths begin in, the fewest rows that it has, and the most tests of a row.
PAGES = [("inputs", ROOT / "tests", 51, 1), ("silent_faults", ROOT, 61, 9)]
NAMED = re.compile(r"`(?P<file>[\w/]+\.py)::(?P<test>test_\w+)`")


def rows(page: str) -> list[str]:
    """The rows of the tables of a page, without their headings."""
    lines = (ROOT / "docs/reference" / f"{page}.md").read_text(encoding="utf-8").splitlines()
    found = [line for line in lines if line.startswith("|")]
    headings = {at - 1 for at, line in enumerate(found) if line.startswith("| ---")}
    return [
        line for at, line in enumerate(found) if at not in headings and not line.startswith("| ---")
    ]


@pytest.mark.parametrize(("page", "folder", "fewest", "most"), PAGES, ids=[p[0] for p in PAGES])
def test_every_row_has_a_test_that_exists(page, folder, fewest, most):
    assert len(rows(page)) >= fewest
    lost = []
    for row in rows(page):
        cell = row.rstrip(" |").rpartition(" | ")[2]
        named = list(NAMED.finditer(cell))
        # Nothing but tests, or one of them has not been recognised.
        if not 1 <= len(named) <= most or NAMED.sub("", cell).strip(", "):
            lost.append(row)
        for each in named:
            file = folder / each["file"]
            if not file.is_file() or f"def {each['test']}(" not in file.read_text(encoding="utf-8"):
                lost.append(each[0])
    assert lost == []


def test_tests_of_faults_are_of_this_package():
    """Paths of that page begin at the repository, as a reader calls pytest."""
    files = {each["file"] for row in rows("silent_faults") for each in NAMED.finditer(row)}
    assert len(files) > 30
    assert {file.partition("/")[0] for file in files} == {"tests"}
