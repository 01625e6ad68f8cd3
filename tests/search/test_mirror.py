"""Every module of the search has a test file of its name, in the same place of the tests."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SEARCH = ROOT / "gsfl_tune" / "search"
MODULES = sorted(
    path.relative_to(SEARCH) for path in SEARCH.rglob("*.py") if path.stem != "__init__"
)


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_it_has_a_test_file_with_tests(module: Path) -> None:
    # A leading underscore says that a module is of its package alone.
    file = ROOT / "tests" / "search" / module.parent / f"test_{module.stem.lstrip('_')}.py"
    assert file.is_file(), f"{file.relative_to(ROOT)} is missing"
    assert "def test_" in file.read_text(encoding="utf-8")


def test_there_are_modules_to_look_for() -> None:
    assert len(MODULES) > 60
