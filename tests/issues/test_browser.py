"""The page in a real browser: pictures to look at, boxes to tick, a list to take away."""

from __future__ import annotations

import pytest

from tests.issues.conftest import EVIL
from tests.report.browser import Visit, launched


@pytest.fixture(scope="module")
def browser():
    with launched() as found:
        yield found


@pytest.fixture
def visit(browser, issues):
    visits = []

    def go(**options):
        visits.append(Visit(browser, (issues.folder / "issues.html").as_uri(), **options))
        return visits[-1]

    yield go
    for each in visits:
        each.close()


@pytest.mark.parametrize(
    ("theme", "width"),
    [("light", 390), pytest.param("dark", 390, marks=pytest.mark.slow), ("dark", 1280)],
)
def test_everything_is_shown_and_nothing_is_fetched(visit, issues, theme, width):
    here = visit(color_scheme=theme, viewport={"width": width, "height": 800})
    page = here.page
    counts = {kind: count for kind, count in issues.answer["counts"].items() if count}
    shown = {
        section.get_attribute("id"): len(section.query_selector_all(".find"))
        for section in page.query_selector_all("section.kind")
    }
    assert shown == counts
    pictures = page.evaluate("[...document.images].map((each) => each.naturalWidth)")
    # All but the broken image and the class with few images (twice); squares of 1.15 x 96 pixels.
    assert pictures == [111] * (sum(counts.values()) - counts["broken"] - 2)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # A label is judged by its picture, which is larger than others.
    wide = {
        kind: page.evaluate(f"document.querySelector('#{kind} img').clientWidth")
        for kind in ("label", "outlier")
    }
    assert wide["label"] > 1.3 * wide["outlier"]
    assert [url for url in here.requests if not url.startswith(("file:", "data:"))] == []
    assert here.complaints == []


def contrast(page, selector):
    """Ratio of the luminances of a text and of what is behind it, as WCAG defines it."""
    return page.evaluate(
        """(selector) => {
          const levels = (text) => text.match(/[\\d.]+/g).map(Number);
          const element = document.querySelector(selector);
          let behind = element;
          const ground = (each) => getComputedStyle(each).backgroundColor;
          while (/rgba\\(.*, 0\\)/.test(ground(behind))) behind = behind.parentElement;
          const light = (text) => {
            const [r, g, b] = levels(text).map((v) => v / 255)
              .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
            return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
          };
          const both = [light(getComputedStyle(element).color), light(ground(behind))];
          return Math.max(...both) / Math.min(...both);
        }""",
        selector,
    )


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_words_can_be_read_in_both_themes(visit, theme):
    page = visit(color_scheme=theme).page
    for selector in ("h1", ".about", ".find .class", ".find .path", ".arrow", ".reason", "#untick"):
        assert contrast(page, selector) >= 4.5, selector
    page.check("#label input")
    assert contrast(page, "#download") >= 4.5


def test_what_is_ticked_is_downloaded_and_leaves_the_images_out(visit, issues, tmp_path):
    here = visit()
    page = here.page
    assert page.is_disabled("#download")
    page.click("#near_duplicate [data-tick]")
    assert page.inner_text("#ticked-count") == "1 image ticked"
    # By keyboard: the box has the focus ring, space ticks.
    page.focus("#label .find:first-child input")
    page.keyboard.press("Space")
    wrong = page.get_attribute("#label .find:first-child input", "data-path")
    assert page.inner_text("#ticked-count") == "2 images ticked"
    # An image with two issues is one image.
    same = page.query_selector_all("input[data-path]")
    ticked = [box.get_attribute("data-path") for box in same if box.is_checked()]
    assert len(set(ticked)) == 2
    assert all(box.is_checked() == (box.get_attribute("data-path") in ticked) for box in same)
    with page.expect_download() as started:
        page.click("#download")
    assert started.value.suggested_filename == "exclude.txt"
    file = tmp_path / "exclude.txt"
    started.value.save_as(file)
    head, *lines = file.read_text(encoding="utf-8").splitlines()
    assert head.startswith("# shapes")
    assert sorted(lines) == sorted(set(ticked))
    assert wrong in lines

    from gsfl_tune.data import prepare
    from gsfl_tune.experiment.data_config import DataConfig

    data = DataConfig(
        source="folder", path=str(issues.planted.folder), image_size=96, max_broken=0.5
    )
    cache = issues.folder.parent / "cache"
    left = [
        {*dataset.pool.paths, *dataset.test.paths, *dataset.dropped.paths}
        for dataset in (
            prepare(data, cache_dir=cache),
            prepare(data.model_copy(update={"exclude": str(file)}), cache_dir=cache),
        )
    ]
    assert left[0] - left[1] == set(lines)
    page.click("#untick")
    assert page.inner_text("#ticked-count") == "nothing ticked"
    assert page.is_disabled("#download")
    assert here.complaints == []


@pytest.mark.parametrize("kind", ["label", "outlier", "near_duplicate"])
def test_the_surest_come_first(visit, issues, kind):
    found = visit().page.query_selector_all(f"#{kind} input[data-path]")
    shown = [box.get_attribute("data-path") for box in found]
    rows = [row for row in issues.rows if row["issue"] == kind]
    assert shown == [row["path"] for row in rows]
    if kind != "near_duplicate":  # whose sets stay together
        scores = [float(row["score"]) for row in rows]
        assert scores == sorted(scores, reverse=True)


def test_a_class_whose_name_is_markup_is_text(visit):
    page = visit().page
    assert EVIL.replace("/", "⁄") in page.inner_text("#few_images")
    assert page.evaluate("document.scripts.length") == 1


def test_without_scripts_everything_is_there_to_read(visit, issues):
    page = visit(java_script_enabled=False).page
    assert page.locator(".find").count() == len(issues.rows)
    assert "Ticking needs JavaScript" in page.inner_text("#overview")
