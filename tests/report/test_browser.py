"""The page in a real browser: it draws everything, its tabs and tables work, it fetches nothing."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from gsfl_tune.report import write_report
from gsfl_tune.run.results import read_results, write_results
from tests.report.browser import Visit, launched
from tests.report.runs import RunMaker
from tests.report.test_clock import with_a_night
from tests.report.test_page import EVIL

TABS = ("answer", "search", "trials", "model", "decomposition")


@pytest.fixture(scope="module")
def browser():
    with launched() as found:
        yield found


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    names = (*(f"gull {n}" for n in range(11)), EVIL)
    maker = RunMaker(tmp_path_factory.mktemp("browser") / "run", names=names)
    return write_report(maker.begin().search(running=1).finish().evidence().path)


@pytest.fixture
def visit(browser):
    visits = []

    def go(url, **options):
        visits.append(Visit(browser, url if "://" in str(url) else url.as_uri(), **options))
        return visits[-1]

    yield go
    for each in visits:
        each.close()


def open_tab(page, name):
    page.click(f"#tab-{name}")
    page.wait_for_selector(f"#{name}.open")


@pytest.mark.parametrize(
    ("theme", "width"),
    [
        ("light", 390),
        ("dark", 1280),
        pytest.param("dark", 390, marks=pytest.mark.slow),
        pytest.param("light", 1280, marks=pytest.mark.slow),
    ],
)
def test_every_chart_is_drawn_without_a_complaint(visit, whole, theme, width):
    here = visit(whole, color_scheme=theme, viewport={"width": width, "height": 800})
    drawn = 0
    for name in TABS:
        open_tab(here.page, name)
        for chart in here.page.query_selector_all(f"#{name} [data-chart]"):
            box = chart.query_selector("svg, canvas")
            assert box, chart.get_attribute("data-chart")
            assert box.bounding_box()["height"] > 20
            drawn += 1
        # Nothing sticks out: wide tables scroll by themselves.
        assert here.page.evaluate("document.documentElement.scrollWidth") <= width
    assert drawn == 16
    assert here.complaints == []
    assert [url for url in here.requests if not url.startswith(("file:", "data:"))] == []
    assert here.page.evaluate("document.images.length") == 6
    assert here.page.evaluate("[...document.images].every((each) => each.complete)")


def test_where_a_search_was_interrupted_is_marked(visit, tmp_path):
    maker = with_a_night(RunMaker(tmp_path / "run").begin().search(20))
    here = visit(write_report(maker.path))
    open_tab(here.page, "search")
    marks = here.page.query_selector_all("#fig-best .interrupted")
    assert [mark.text_content() for mark in marks] == ["interrupted"]
    marks[0].query_selector("text").hover()
    assert here.page.inner_text("#tip") == "interrupted for 8 h, not counted"
    # Two trials a second, not eight hours.
    assert " h" not in "".join(here.page.locator("#fig-best svg > g text").all_text_contents())
    assert here.complaints == []


def test_what_only_some_runs_have_is_drawn_too(visit, tmp_path):
    maker = RunMaker(tmp_path / "run").begin().search(latency=True)
    maker.finish(pareto=[(3, 0.5, 2.5), (6, 0.6, 4.0), (9, 0.7, 8.0)])
    results = read_results(maker.run.results_file)
    write_results(maker.run.results_file, replace(results, metric="validation/macro_f1"))
    maker.evidence(confusion=None, confusion_groups=[[8, 1, 0], [2, 9, 1], [0, 3, 7]])
    here = visit(write_report(maker.path))
    open_tab(here.page, "search")
    # The first objective, whatever its key in the file is called.
    axes = here.page.locator("#fig-pareto svg text.name").all_text_contents()
    assert axes == ["latency ms", "validation/macro_f1"]
    front = here.page.locator("#fig-pareto svg path[fill='var(--finished)']:not([opacity])")
    assert front.count() == 3
    front.first.hover()
    assert here.page.inner_text("#tip").startswith("trial 3: 50.0 % at 2.5")
    # Every third of 30 trials finishes, but the first one fails.
    assert here.page.locator("#fig-pareto svg path[opacity='0.3']").count() == 9 - 3
    open_tab(here.page, "model")
    assert here.page.query_selector("#fig-confusion_groups").query_selector("svg, canvas")
    assert here.complaints == []


def test_a_latency_of_a_busy_machine_has_a_question_mark_in_the_chart(visit, tmp_path):
    maker = RunMaker(tmp_path / "run").begin().search(latency=True, busy=2)
    here = visit(write_report(maker.path))
    open_tab(here.page, "search")
    # One of each trial that ended with an even number, on the front or not.
    marks = here.page.locator("#fig-pareto svg text.unsure")
    assert marks.all_text_contents() == ["?"] * 4
    data = here.page.evaluate("JSON.parse(document.querySelector('#run-data').textContent)")
    doubtful = [p for p in data["search"]["pareto"] if not p["latency_reliable"]]
    dots = here.page.locator("#fig-pareto svg").first.locator("path[stroke-width='1.6']")
    tips = []
    for place in range(dots.count()):
        dots.nth(place).hover()
        tip = here.page.inner_text("#tip")
        assert ("unreliable" in tip) == ("differed by 35 %" in tip)
        tips.append("unreliable" in tip)
    assert sum(tips) == len(doubtful)
    assert here.complaints == []


def test_bars_of_identical_runs_have_no_deviation(visit, tmp_path):
    maker = RunMaker(tmp_path / "run").begin().search().finish()
    parts = [
        {
            "part": name,
            "groups": {"mean": 0.8, "std": std},
            "random_groups": {"mean": 0.5, "std": 0},
        }
        for name, std in (("f", 0.0), ("s", 1.4e-17), ("d", 0.02))
    ]
    maker.evidence(probes={"chance": 0.4, "parts": parts})
    here = visit(write_report(maker.path))
    open_tab(here.page, "decomposition")
    bars = here.page.locator("#fig-probes svg rect")
    tips = []
    for place in range(bars.count()):
        bars.nth(place).hover()
        tips.append(here.page.inner_text("#tip"))
    assert len(tips) >= 6
    assert {tip for tip in tips if "±" in tip} == {"discriminative d, the groups: 80.0 % ± 2.0"}


def test_latencies_are_a_column_and_commands_break_between_words(visit, tmp_path):
    maker = RunMaker(tmp_path / "run").begin().search(latency=True).finish()
    page = visit(write_report(maker.path), viewport={"width": 390, "height": 800}).page
    command = page.text_content("#reproduce code >> nth=1")
    assert command.startswith("gsfl-tune train ")
    assert command == " ".join(command.split())
    for word in page.query_selector_all("#reproduce code span"):
        if word.inner_text().startswith("--"):
            assert word.bounding_box()["height"] < 30, word.inner_text()
    open_tab(page, "trials")
    heads = [head.inner_text() for head in page.query_selector_all("#trials-table thead th")]
    position = heads.index("latency ms") + 1
    known = [text for text in column(page, position) if text != "–"]
    # Every third of 30 trials finishes, but the first one fails.
    assert len(known) == 9
    assert all(float(text) > 0 for text in known)


@pytest.mark.parametrize("width", [390, 1280])
def test_the_matrix_has_names_and_numbers_at_any_width(visit, whole, width):
    here = visit(f"{whole.as_uri()}#model", viewport={"width": width, "height": 800})
    page = here.page
    matrix = page.evaluate("JSON.parse(document.querySelector('#run-data').textContent).confusion")
    labels, counts = matrix["labels"], {(r, c): n for r, c, n in matrix["cells"]}
    side = page.query_selector("#fig-confusion canvas").bounding_box()["width"]
    # A cell has room for its number; a narrow page scrolls inside the card.
    assert side >= 26 * len(labels)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("#fig-confusion select option").all_text_contents() == labels
    right = [counts.get((row, row), 0) for row in range(len(labels))]
    totals = [sum(n for (r, _), n in counts.items() if r == row) for row in range(len(labels))]
    shares = [a / b for a, b in zip(right, totals, strict=True)]
    worst = shares.index(min(shares))
    words = page.inner_text("#fig-confusion .matrix-words")
    assert words.startswith(f"Right: {right[worst]} of {totals[worst]} (")
    page.select_option("#fig-confusion select", "3")
    words = page.inner_text("#fig-confusion .matrix-words")
    assert words.startswith(f"Right: {right[3]} of {totals[3]} (")
    given = {c: n for (r, c), n in counts.items() if r == 3 and c != 3}
    taken = {r: n for (r, c), n in counts.items() if c == 3 and r != 3}
    told, also = words.split("Predicted as it: ")
    assert all(f"{labels[column]} ({number})" in told for column, number in given.items())
    assert all(f"{labels[row]} ({number})" in also for row, number in taken.items())
    # The bars of the classes have names too.
    under = page.locator("#fig-classes svg text.under")
    assert under.count() == len(labels)
    assert set(under.all_text_contents()) & set(labels) >= {"gull 0", "gull 10"}
    page.click("#fig-confusion canvas", position={"x": side - 5, "y": side - 5})
    assert page.input_value("#fig-confusion select") == str(len(labels) - 1)
    assert here.complaints == []
    folder = os.environ.get("GSFL_TUNE_SCREENSHOTS")
    if folder:
        page.locator("#fig-confusion").screenshot(path=f"{folder}/matrix-{width}.png")
        page.locator("#fig-classes").screenshot(path=f"{folder}/classes-{width}.png")


def test_tabs_follow_the_address_and_the_keyboard(visit, whole):
    here = visit(f"{whole.as_uri()}#model")
    assert here.page.is_visible("#model")
    assert not here.page.is_visible("#answer")
    here.page.focus("#tab-model")
    here.page.keyboard.press("ArrowRight")
    assert here.page.is_visible("#decomposition")
    assert here.page.evaluate("location.hash") == "#decomposition"
    assert here.page.evaluate("document.activeElement.id") == "tab-decomposition"
    here.page.keyboard.press("ArrowRight")
    assert here.page.get_attribute("#tab-answer", "aria-selected") == "true"
    here.page.goto(f"{whole.as_uri()}#fig-swap")
    assert here.page.is_visible("#fig-swap")
    assert here.complaints == []


def column(page, index):
    cells = page.query_selector_all(f"#trials-table tbody tr > :nth-child({index})")
    return [cell.inner_text() for cell in cells]


def test_tables_sort_by_click_and_by_keyboard(visit, whole):
    page = visit(f"{whole.as_uri()}#trials").page
    assert [int(text) for text in column(page, 1)] == list(range(30))
    value = "#trials-table thead th:nth-child(3)"
    page.click(f"{value} button")
    percents = [float(text.split()[0]) for text in column(page, 3) if text != "–"]
    assert percents == sorted(percents, reverse=True)
    assert page.get_attribute(value, "aria-sort") == "descending"
    page.focus(f"{value} button")
    page.keyboard.press("Enter")
    percents = [float(text.split()[0]) for text in column(page, 3) if text != "–"]
    assert percents == sorted(percents)
    count = page.locator("#trials-table thead th", has_text="model.groups.count")
    position = count.evaluate("(head) => [...head.parentElement.children].indexOf(head) + 1")
    count.locator("button").click()
    texts = column(page, position)
    known = [int(text) for text in texts if text != "–"]
    assert known == sorted(known)
    # What was not active comes last.
    assert set(texts[len(known) :]) == {"–"}


def test_a_picture_tells_what_is_under_the_pointer(visit, whole):
    page = visit(f"{whole.as_uri()}#fig-classes").page
    bar = page.query_selector("#fig-classes svg rect[fill='var(--failed)']")
    bar.hover()
    assert "in the worst tenth" in page.inner_text("#tip")
    open_tab(page, "search")
    page.query_selector("#fig-timeline svg rect:not(.idle)").hover()
    assert "process 10" in page.inner_text("#tip")


def test_dragging_along_an_axis_keeps_the_trials_that_pass(visit, whole):
    here = visit(f"{whole.as_uri()}#fig-parallel")
    page = here.page
    all_lines = page.locator("#fig-parallel .series").count()
    handle = page.locator("#fig-parallel .handle").last
    handle.scroll_into_view_if_needed()
    box = handle.bounding_box()
    x = box["x"] + box["width"] / 2
    page.mouse.move(x, box["y"] + 2)
    page.mouse.down()
    page.mouse.move(x, box["y"] + box["height"] / 3, steps=4)
    page.mouse.up()
    out = page.locator("#fig-parallel .series.out").count()
    assert 0 < out < all_lines
    assert f"{all_lines - out} of {all_lines} trials pass" in page.inner_text("#fig-parallel")
    page.mouse.click(x, box["y"] + 30)
    assert page.locator("#fig-parallel .series.out").count() == 0
    assert here.complaints == []


def test_maps_can_be_coloured_and_one_class_chosen(visit, whole):
    here = visit(f"{whole.as_uri()}#fig-map")
    page = here.page
    faded = "#fig-map svg path[opacity='0.1']"
    assert page.locator("#fig-map .cell svg").count() == 2
    assert page.locator(faded).count() == 0
    page.select_option("#map-only", label="gull 3")
    assert page.locator(faded).count() == 2 * 20 * 11
    page.select_option("#map-colour", "right")
    assert "wrong" in page.inner_text("#fig-map .legend")
    assert here.complaints == []


def test_what_is_printed_has_every_tab_and_chart(visit, whole):
    page = visit(whole).page
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    for name in TABS:
        assert page.is_visible(f"#{name}")
    charts = page.query_selector_all("[data-chart]")
    assert all(chart.query_selector("svg, canvas") for chart in charts)
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert not page.is_visible("#model")
    assert len(page.pdf()) > 20_000


@pytest.mark.parametrize("state", ["begun", "failed", "plain"])
def test_pages_of_other_states_draw_too(visit, tmp_path, state):
    maker = RunMaker(tmp_path / "run", groups=0 if state == "plain" else 3).begin()
    if state != "begun":
        maker.search({"failed": 3, "plain": 30}[state], failed=3 * (state == "failed"))
    if state == "plain":
        maker.finish(control=False, seeds=1)
        maker.evidence(probes=None, swap=None, group_errors=None, pictures=None)
    here = visit(write_report(maker.path), viewport={"width": 390, "height": 800})
    for name in TABS:
        open_tab(here.page, name)
        assert here.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert here.complaints == []


def test_without_scripts_words_and_tables_are_all_there(visit, whole):
    page = visit(whole, java_script_enabled=False).page
    for name in TABS:
        assert page.is_visible(f"#{name}")
    assert "best value over time" in page.inner_text("#fig-best").lower()
