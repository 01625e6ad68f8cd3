"""Every table of the page that offers to sort sorts by every column, both ways."""

from __future__ import annotations

import re
from dataclasses import replace

import pandas as pd
import pytest

from gsfl_tune.report import write_report
from gsfl_tune.run.results import Ensemble, read_results, write_results
from tests.report.browser import Visit, launched
from tests.report.conftest import scores
from tests.report.runs import RunMaker
from tests.report.test_page import EVIL

TABLES = {
    "answer": ("models-table", "settings"),
    "search": ("rungs-table", "failures-table"),
    "trials": ("trials-table",),
    "model": ("classes-table",),
}
# As text, 0.28 would come before 0.0075, and 1e-05 after both.
PARAMS = {
    "model.dropout": 0.28,
    "model.groups.method": "kmeans",
    "model.groups.count": 5,
    "loss.shared_center": 1e-05,
    "training.head.learning_rate": 0.0075,
}
NUMBER = re.compile(r"([+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?: %)?(?: ±.*| \(.* to .*\))?")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    names = (*(f"gull {n}" for n in range(11)), EVIL)
    maker = RunMaker(tmp_path_factory.mktemp("sorting") / "run", names=names)
    maker.begin().search(running=1, latency=True, failed=4).finish().evidence()
    results = read_results(maker.run.results_file)
    # Its accuracy has no interval, and lies between those that have one.
    ensemble = Ensemble([1, 2, 3], scores(0.695))
    winner = replace(results.winner, params=PARAMS)
    write_results(maker.run.results_file, replace(results, winner=winner, ensemble=ensemble))
    table = pd.read_parquet(maker.run.trials_parquet)
    table.loc[table["number"] == 2, "reason"] = "CUDA out of memory"
    table.to_parquet(maker.run.trials_parquet)
    with launched() as browser:
        here = Visit(browser, write_report(maker.path).as_uri())
        yield here.page
        assert here.complaints == []
        here.close()


def _rows(page, table):
    """What a person sees: the text of every cell, without badges."""
    return page.eval_on_selector_all(
        f"#{table} > tbody > tr",
        """rows => rows.map(row => [...row.cells].map(cell => {
            const own = cell.cloneNode(true);
            own.querySelectorAll(".badge").forEach(badge => badge.remove());
            return own.textContent.trim();
        }))""",
    )


def _is_sorted(page, texts, direction):
    """By size where there are numbers, else as a dictionary would; numbers before words."""
    there = [text for text in texts if text not in ("", "–")]
    if set(texts[len(there) :]) - {"", "–"}:
        return False
    if direction == "descending":
        there.reverse()
    found = [NUMBER.fullmatch(text) for text in there]
    numbers = [float(each[1]) for each in found if each]
    words = [text for text, each in zip(there, found, strict=True) if not each]
    if any(each is None for each in found[: len(numbers)]) or numbers != sorted(numbers):
        return False
    collated = "words => words.toSorted(new Intl.Collator(undefined, {numeric: true}).compare)"
    return words == page.evaluate(collated, words)


@pytest.mark.parametrize(("tab", "table"), [(tab, t) for tab, ts in TABLES.items() for t in ts])
def test_a_table_sorts_by_every_column(page, tab, table):
    page.click(f"#tab-{tab}")
    for details in page.query_selector_all(f"#{tab} details:not([open]) > summary"):
        details.click()
    before = _rows(page, table)
    assert len(before) >= (2 if table == "failures-table" else 3)
    heads = page.query_selector_all(f"#{table} > thead th")
    assert all(len(row) == len(heads) for row in before)
    for index, head in enumerate(heads):
        seen = set()
        for _ in range(2):
            head.query_selector("button").click()
            direction = head.get_attribute("aria-sort")
            seen.add(direction)
            rows = _rows(page, table)
            # Whole rows have moved, and none was lost.
            assert sorted(rows) == sorted(before)
            texts = [row[index] for row in rows]
            assert _is_sorted(page, texts, direction), (table, head.inner_text(), direction, texts)
        assert seen == {"ascending", "descending"}


def test_no_table_that_offers_to_sort_was_forgotten(page):
    found = page.eval_on_selector_all("table:has(th button)", "all => all.map(each => each.id)")
    assert sorted(found) == sorted(table for tables in TABLES.values() for table in tables)
    assert sorted(found) == sorted(
        page.eval_on_selector_all("table.sortable", "all => all.map(each => each.id)")
    )
