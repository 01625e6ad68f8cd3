"""Files stay small, lines of pages fit, and tables are whole."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULE, LINE = 400, 120


def _tracked(*patterns: str) -> list[Path]:
    done = subprocess.run(
        ["git", "ls-files", "--", *patterns], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip("not a checkout")
    return [ROOT / name for name in done.stdout.splitlines() if (ROOT / name).is_file()]


def test_no_module_is_longer_than_four_hundred_lines():
    counts = {
        file: file.read_text().count("\n") for file in _tracked("gsfl_tune/*.py", "tests/*.py")
    }
    assert {file.name: count for file, count in counts.items() if count > MODULE} == {}


def test_no_line_of_a_page_is_longer_than_one_hundred_and_twenty():
    """Rows of tables and blocks of code are not wrapped."""
    long = []
    for file in _tracked("docs/*.md", "README.md", "CONTRIBUTING.md", "examples/*.md"):
        code = False
        for number, line in enumerate(file.read_text().splitlines(), 1):
            code ^= line.lstrip().startswith("```")
            if len(line) > LINE and not code and not line.startswith("|"):
                long.append(f"{file.name}:{number}")
    assert long == []


def test_no_table_is_cut_in_two():
    """A blank line between rows ends a table: what follows is shown as text."""
    cut = []
    for file in _tracked("docs/*.md", "README.md", "CONTRIBUTING.md", "examples/*.md"):
        lines = file.read_text().splitlines()
        for number, (before, blank, row) in enumerate(
            zip(lines, lines[1:], lines[2:], strict=False), 3
        ):
            follows = lines[number] if number < len(lines) else ""
            if before.startswith("|") and not blank and row.startswith("|"):
                cut += [] if follows.startswith("| ---") else [f"{file.name}:{number}"]
    assert cut == []
