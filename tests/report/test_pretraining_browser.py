"""The page of a pretraining in a real browser: narrow and wide, light and dark."""

from __future__ import annotations

import numpy as np
import pytest

from gsfl_tune.report.pretraining import Dimensions, Pictures, pretraining_page
from tests.report.test_evaluation_browser import picture
from tests.report.test_page import EVIL

JUDGED = {"linear_probe": 0.31, "knn_20": 0.22, "retrieval_map": 0.1, "screened/knn_20": 0.2}


def records(epochs=20, every=5):
    """Lines of ``epochs.jsonl`` of a training whose features become better."""
    found = []
    for epoch in range(epochs + 1):
        row = {"epoch": epoch}
        if epoch:
            row |= {"train/loss": 2 - epoch / 40, "train/base": 1.5 - epoch / 50}
            row |= {"train/spread": 0.4 + epoch / 100}
        if epoch % every == 0:
            row |= {f"validation/{key}": value + epoch / 100 for key, value in JUDGED.items()}
        found.append(row)
    return found


def whole_page(**options):
    rng = np.random.default_rng(0)
    variance, importance = 10 ** rng.normal(-3, 1, (2, 64))
    # A dimension that is never active has neither.
    variance[0] = importance[0] = 0.0
    given = {
        "pictures": [
            Pictures(name, *(picture(20 * n + k) for k in range(5)))
            for n, name in enumerate(("gull.jpg", EVIL, "a-rather-long-name-of-a-file" * 4))
        ],
        "dimensions": Dimensions(
            variance.tolist(), importance.tolist(), (importance < 1e-3).tolist()
        ),
        **options,
    }
    return pretraining_page(EVIL, {"method": "moco", "images": "1,234, 96 px"}, records(), **given)


@pytest.mark.parametrize(
    ("theme", "width"),
    [("light", 390), pytest.param("dark", 390, marks=pytest.mark.slow), ("dark", 1280)],
)
def test_everything_is_drawn_and_nothing_sticks_out(visit_page, theme, width):
    here = visit_page(whole_page(), color_scheme=theme, viewport={"width": width, "height": 800})
    for name in ("judged", "terms", "dimensions"):
        box = here.page.query_selector(f"[data-chart={name}] svg").bounding_box()
        assert box["height"] > 200
    assert here.page.locator("[data-chart=judged] .series").count() == len(JUDGED)
    assert here.page.evaluate("document.documentElement.scrollWidth") <= width
    assert here.page.locator("#fig-maps img").count() == 9
    assert here.page.locator("#fig-decoded img").count() == 9
    assert here.page.inner_text("h1") == EVIL
    assert here.complaints == []
    assert [url for url in here.requests if not url.startswith(("file:", "data:"))] == []


def test_the_table_says_what_was_gained(visit_page):
    page = visit_page(whole_page()).page
    cells = [cell.inner_text() for cell in page.query_selector_all("#scores-table tbody tr *")]
    assert cells[:5] == ["linear probe", "31.0 %", "51.0 %", "+20.0", "51.0 % (epoch 20)"]
    assert "kNN, k 20, screened" in cells
    counts = page.inner_text("[data-chart=dimensions] .legend")
    kept, crossed = (int(part.split("(")[1].split(")")[0]) for part in counts.splitlines() if part)
    assert kept + crossed == 64


def test_what_is_not_known_is_left_out(visit_page):
    rows = [{key: value for key, value in row.items() if "train/" not in key} for row in records()]
    page = visit_page(pretraining_page("birds", {}, [rows[0], rows[-1]])).page
    assert "not known" in page.inner_text("#fig-terms")
    assert page.query_selector("#fig-maps, #fig-decoded, #fig-dimensions") is None
    assert page.query_selector("[data-chart=judged] svg") is not None
