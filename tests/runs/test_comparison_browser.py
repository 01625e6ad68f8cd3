"""The page of a comparison in a real browser: narrow and wide, light and dark."""

from __future__ import annotations

import pytest

from gsfl_tune.runs import compare_runs
from gsfl_tune.runs.side_by_side import write_page
from tests.report.browser import Visit, launched
from tests.runs.made import answers, finished_run


@pytest.fixture(scope="module")
def browser():
    with launched() as found:
        yield found


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Seven runs, one with a name that would be markup, one with other test images."""
    top = tmp_path_factory.mktemp("runs")
    names = ["<script>alert(1)<", "a" * 60, *(f"run {k}" for k in range(5))]
    runs = [finished_run(top / name, answers(k)).path for k, name in enumerate(names)]
    runs.append(finished_run(top / "other", answers(9, 40), data="zz", test="zz").path)
    return write_page(compare_runs(runs), top / "page.html")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_it_is_whole_at_any_width_in_both_themes(browser, page, width, theme):
    visit = Visit(
        browser, page.as_uri(), viewport={"width": width, "height": 800}, color_scheme=theme
    )
    try:
        assert visit.complaints == []
        assert visit.requests == [page.as_uri()]
        there = visit.page
        assert there.evaluate("document.documentElement.scrollWidth") <= width
        for chart, lines in (("differences", 6), ("compared", 8), ("progress", 8)):
            drawn = there.locator(f"[data-chart={chart}] .series")
            assert drawn.count() == lines
            box = there.locator(f"[data-chart={chart}] svg").first.bounding_box()
            assert box["width"] <= width
        assert there.locator("#fig-answer li").count() == 7
        assert "the test images differ" in there.locator("#fig-answer li").last.inner_text()
        assert there.locator("h1").inner_text().startswith("<script>alert(1)<")
        background = there.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(18, 22, 26)") == (theme == "dark")
        colours = there.evaluate(
            "[...document.querySelectorAll('[data-chart=compared] .series > path:first-child')]"
            ".map(each => getComputedStyle(each).stroke + each.getAttribute('stroke-dasharray'))"
        )
        assert len(set(colours)) == 8  # nobody takes one run for another
    finally:
        visit.close()
