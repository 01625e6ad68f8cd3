"""The table of inputs names tests that exist, and leaves no line without one."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
LINES = [
    line
    for line in (ROOT / "docs" / "reference" / "inputs.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("|") and not line.startswith(("| input |", "| --- |"))
]


def test_every_input_has_a_test_that_exists():
    assert len(LINES) > 50
    lost = []
    for line in LINES:
        named = re.search(r"`(?P<file>[\w/]+\.py)::(?P<test>\w+)` \|$", line)
        file = ROOT / "tests" / named["file"] if named else None
        if not file or f"def {named['test']}(" not in file.read_text(encoding="utf-8"):
            lost.append(line)
    assert lost == []
