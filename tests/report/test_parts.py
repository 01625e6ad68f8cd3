"""How well parts are found: on the page and in the terminal."""

from __future__ import annotations

from tests.report.runs import RunMaker
from tests.report.test_decomposition import text_of
from tests.report.test_page import page_of

PARTS = {
    "images": 120,
    "shown": 150,
    "overlap": 0.612,
    "found": 0.75,
    "parts": [
        {"part": "left <b>eye", "shown": 150, "overlap": 0.612, "found": 0.75},
        {"part": "tail", "shown": 0, "overlap": None, "found": None},
    ],
}


def test_the_page_has_a_table_of_parts(tmp_path):
    maker = RunMaker(tmp_path / "run").begin().search().finish()
    maker.evidence(parts=PARTS)
    page = page_of(maker.path)
    text = " ".join(page.text("fig-parts").split())
    assert "all of them 75.0 % 61.2 % 150" in text
    assert "left <b>eye 75.0 % 61.2 % 150" in text
    assert "tail - - 0" in text
    assert "120 test images" in text
    maker.evidence()
    assert "fig-parts" not in page_of(maker.path).ids


def test_the_terminal_too():
    flat = " ".join(text_of({"parts": PARTS}).split())
    assert "Parts found in 120 test images" in flat
    assert "all of them 75.0 % 61.2 % 150" in flat
    assert "tail - - 0" in flat
