"""The page of an evaluation in a real browser: narrow and wide, light and dark."""

from __future__ import annotations

import base64
import io

import pytest
from PIL import Image

from gsfl_tune.report.evaluation import MOST_WRONG, evaluation_page
from tests.report.test_page import EVIL

NAMES = [*(f"herring gull of the {n}th kind" for n in range(11)), EVIL]


def content(names: list[str], wrong: int) -> dict:
    """What `evaluate --json` prints, of a classifier that takes some classes for the next one."""
    count = len(names)
    matrix = [[0] * count for _ in range(count)]
    for row in range(count):
        matrix[row][row] = 20 - row % 7
        matrix[row][(row + 1) % count] = row % 7
    return {
        "part": "test",
        "images": 20 * count,
        "classes": count,
        "broken": 1,
        "notices": ["left out: 3 files: .txt 3"],
        "metrics": {
            "accuracy": 0.87,
            "balanced_accuracy": 0.86,
            "top5": 0.99,
            "nll": 0.4123,
            "ece": 0.031,
        },
        "per_class": [
            {
                "name": name,
                "count": sum(matrix[row]),
                "predicted": sum(each[row] for each in matrix),
                "recall": matrix[row][row] / 20,
                "precision": None if row == 3 else 0.5 + row / 40,
                "f1": 0.7,
            }
            for row, name in enumerate(names)
        ],
        "confusion": {"classes": names, "matrix": matrix},
        "most_confused": [
            {
                "classes": [names[row], names[(row + 1) % count]],
                "counts": [row % 7, 0],
                "share": 0.1,
            }
            for row in range(count)
            if row % 7
        ],
        "wrong_images": [
            {
                "path": f"/a/rather/long/way/to/the/images/of/{names[n % count]}/{n}.jpg",
                "label": names[n % count],
                "predicted": names[(n + 1) % count],
                "confidence": 1 - n / 1000,
                "probability": 0.001,
            }
            for n in range(wrong)
        ],
    }


def picture(shade: int) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (128, 128), (shade % 256, 120, 90)).save(buffer, "JPEG")
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


@pytest.mark.parametrize(
    ("theme", "width"),
    [("light", 390), pytest.param("dark", 390, marks=pytest.mark.slow), ("dark", 1280)],
)
def test_everything_is_drawn_and_nothing_sticks_out(visit_page, theme, width):
    page = evaluation_page(
        content(NAMES, 40),
        bundle="runs/gulls/best",
        source="/data/some other gulls",
        pictures=[picture(5 * n) for n in range(24)],
    )
    here = visit_page(page, color_scheme=theme, viewport={"width": width, "height": 800})
    canvas = here.page.query_selector("#fig-confusion canvas")
    assert canvas.bounding_box()["height"] > 200
    assert here.page.inner_text("#scores .number") == "87.00 %"
    here.page.click("#wrong-all summary")
    assert here.page.evaluate("document.documentElement.scrollWidth") <= width
    heights = "[...document.images].map((each) => each.getBoundingClientRect().height)"
    shown = here.page.evaluate(heights)
    assert len(shown) == 24
    assert min(shown) > 90
    assert here.page.evaluate("[...document.images].every((each) => each.src.startsWith('data:'))")
    dark = here.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert dark == {"light": "rgb(244, 246, 248)", "dark": "rgb(18, 22, 26)"}[theme]
    assert here.complaints == []
    assert [url for url in here.requests if not url.startswith(("file:", "data:"))] == []


def test_classes_are_the_worst_first_and_sort(visit_page):
    page = visit_page(evaluation_page(content(NAMES, 0), bundle="b", source="s")).page

    def column(index: int) -> list[str]:
        cells = page.query_selector_all(f"#classes-table tbody tr > :nth-child({index})")
        return [cell.inner_text() for cell in cells]

    recalls = [float(text.removesuffix(" %")) for text in column(3)]
    assert recalls == sorted(recalls)
    page.click("#classes-table thead th:nth-child(4) button")
    assert column(4)[-1] == "–"
    known = [float(text.removesuffix(" %")) for text in column(4)[:-1]]
    assert known == sorted(known)
    assert page.inner_text("#fig-wrong .note") == "None."


def test_what_is_too_much_for_a_page_is_said(visit_page):
    names = [f"class {n}" for n in range(230)]
    page = visit_page(evaluation_page(content(names, MOST_WRONG + 7), bundle="b", source="s")).page
    assert "too many classes to draw the matrix" in page.inner_text("#fig-confusion")
    assert page.inner_text("#wrong-all summary") == f"Table of the first 500 of {MOST_WRONG + 7}"
    assert page.locator("#wrong-table tbody tr").count() == MOST_WRONG
    assert "The first 20 of" in page.inner_text("#fig-pairs")
