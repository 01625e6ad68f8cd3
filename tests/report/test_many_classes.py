"""Names and numbers of many classes on a narrow screen and a wide one."""

from __future__ import annotations

from itertools import pairwise

import pytest

from gsfl_tune.report.files import read_run
from gsfl_tune.report.page import render
from tests.report.runs import RunMaker

COUNT = 60
NAMES = tuple(f"gull of kind {number}" for number in range(COUNT))


def page_of(names, folder):
    maker = RunMaker(folder / "run", names=names)
    return render(read_run(maker.begin().search().finish().evidence().path))


@pytest.fixture(scope="module")
def page_of_many(tmp_path_factory):
    return page_of(NAMES, tmp_path_factory.mktemp("many"))


def open_model(visit_page, page, width):
    here = visit_page(page, viewport={"width": width, "height": 800})
    here.page.click("#tab-model")
    return here


@pytest.mark.parametrize("width", [390, pytest.param(700, marks=pytest.mark.slow), 1280])
def test_every_bar_has_a_name_that_can_be_read(visit_page, page_of_many, width):
    here = open_model(visit_page, page_of_many, width)
    names = here.page.locator("#fig-classes svg text.under")
    assert sorted(names.all_text_contents()) == sorted(NAMES)
    # They stand upright, no nearer to each other than a line is high.
    places = names.evaluate_all("(all) => all.map((each) => each.getBoundingClientRect().left)")
    assert min(b - a for a, b in pairwise(places)) >= 12.9
    assert here.page.evaluate("document.documentElement.scrollWidth") <= width
    box = here.page.locator("#classes-bars")
    if width == 1280:
        assert box.count() == 0
        return
    seen = "(box) => box.scrollWidth > box.clientWidth && box.tabIndex === 0"
    assert box.evaluate(seen)
    box.evaluate("(box) => { box.scrollLeft = box.scrollWidth; }")
    last = names.last.bounding_box()
    edge = box.bounding_box()
    assert edge["x"] <= last["x"]
    assert last["x"] + last["width"] <= edge["x"] + edge["width"]
    assert here.complaints == []


@pytest.mark.parametrize(
    ("count", "width"), [(40, 390), pytest.param(95, 1280, marks=pytest.mark.slow)]
)
def test_bars_scroll_as_soon_as_names_would_touch(visit_page, tmp_path, count, width):
    names = tuple(f"gull of kind {number}" for number in range(count))
    here = open_model(visit_page, page_of(names, tmp_path), width)
    names = here.page.locator("#fig-classes svg text.under")
    assert names.count() == count
    places = names.evaluate_all("(all) => all.map((each) => each.getBoundingClientRect().left)")
    assert min(b - a for a, b in pairwise(places)) >= 12.9
    box = here.page.locator("#classes-bars")
    assert box.evaluate("(box) => box.scrollWidth > box.clientWidth && box.tabIndex === 0")
    assert here.page.evaluate("document.documentElement.scrollWidth") <= width
    assert here.complaints == []


# Whether each row of the left margin, and each column of the upper one, has ink for its name.
INKED = """(canvas) => {
  const density = canvas.width / canvas.clientWidth;
  const margin = canvas.clientWidth - %d * %d;
  const { data, width } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const inked = (...box) => {
    const [left, top, wide, high] = box.map((each) => Math.floor(each * density));
    for (let y = top; y < top + high; y += 1) {
      for (let x = left; x < left + wide; x += 1) {
        if (data[4 * (y * width + x) + 3] > 100) return true;
      }
    }
    return false;
  };
  return [...Array(%d).keys()].every((n) => inked(4, margin + n * %d, margin - 8, %d)
    && inked(margin + n * %d, 4, %d, margin - 8));
}"""


@pytest.mark.parametrize("width", [390, 1280])
def test_a_matrix_of_many_classes_has_an_overview_and_all_names(visit_page, page_of_many, width):
    here = open_model(visit_page, page_of_many, width)
    page = here.page
    canvases = page.locator("#fig-confusion canvas")
    assert canvases.count() == 1
    assert canvases.first.bounding_box()["width"] <= width
    page.click("#fig-confusion .matrix-large summary")
    page.wait_for_selector("#fig-confusion .matrix-large canvas")
    large = page.locator("#fig-confusion .matrix-large canvas")
    side = large.bounding_box()["width"]
    cell = 18
    assert side > cell * COUNT + 60
    numbers = (COUNT, cell, COUNT, cell, cell, cell, cell)
    assert large.evaluate(INKED % numbers)
    box = page.locator("#fig-confusion .matrix-large .scroll-y")
    assert box.evaluate("(box) => box.scrollHeight > box.clientHeight && box.tabIndex === 0")
    if width == 390:
        assert box.evaluate("(box) => box.scrollWidth > box.clientWidth")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # A click on a row tells of its class, in the large one as in the overview.
    large.click(position={"x": side - 5, "y": side - 5})
    assert page.input_value("#fig-confusion select") == str(COUNT - 1)
    large.hover(position={"x": side - 5, "y": side - 5})
    assert " right " in page.inner_text("#tip")
    assert here.complaints == []


def test_on_paper_all_bars_are_there_and_nothing_scrolls(visit_page, page_of_many):
    here = open_model(visit_page, page_of_many, 700)
    here.page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert here.page.locator("#classes-bars").count() == 0
    assert here.page.locator("#fig-confusion canvas").count() == 1
    here.page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert here.page.locator("#classes-bars").count() == 1
    assert here.complaints == []


@pytest.mark.parametrize("bounded", [False, True])
def test_the_page_says_how_many_wrong_images_it_lists(visit_page, tmp_path, bounded):
    wrong = [
        {"image": n, "path": f"gulls/{n}.jpg", "label": n % 3, "predicted": 3, "confidence": 0.9,
         "probability": 0.01}
        for n in range(1500)
    ]  # fmt: skip
    maker = RunMaker(tmp_path / "run").begin().search().finish()
    maker.evidence(wrong_images={"count": 1500 + 1250 * bounded, "images": wrong})
    here = open_model(visit_page, render(read_run(maker.path)), 1280)
    assert here.page.locator("#wrong-table tbody tr").count() == 1500
    bound = here.page.locator("#wrong-bound").all_inner_texts()
    status = here.page.locator("#fig-wrong [role=status]")
    here.page.select_option("#wrong-class", "gull 1")
    if bounded:
        assert bound == [
            "The table lists the 1,500 most confident, and the filter finds only these."
        ]
        assert status.inner_text() == "500 of this class, 0 predicted as it, of those listed"
    else:
        assert bound == []
        assert status.inner_text() == "500 of this class, 0 predicted as it"
