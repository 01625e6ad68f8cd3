"""Wrong test images in a real browser: small copies, training images near them, the filter."""

from __future__ import annotations

import os
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from gsfl_tune.evidence.wrong_sheet import nearest_sheet, wrong_sheet
from gsfl_tune.report import write_report
from tests.report.browser import Visit
from tests.report.runs import RunMaker
from tests.report.test_page import EVIL
from tests.report.wrong import Squares, many_wrong, wrong_answers


@pytest.fixture
def visit(browser):
    visits = []

    def go(url, **options):
        visits.append(Visit(browser, url, **options))
        return visits[-1]

    yield go
    for each in visits:
        each.close()


def test_wrong_images_are_filtered_by_class(visit, tmp_path):
    shown = (EVIL, *(f"gull {n}" for n in range(11)))
    maker = RunMaker(tmp_path / "run", names=shown).begin().search().finish()
    pictures = maker._pictures()
    pictures += [
        {**pictures[0], "kind": "wrong", "classes": [shown[n], shown[n + 1]]} for n in range(3)
    ]
    # Image n has a shade of its own.
    shades = np.arange(0, 240, 20)
    images = Squares(np.broadcast_to(shades[:, None, None, None], (12, 64, 64, 3)))
    answers = wrong_answers(12)
    sheet = wrong_sheet(maker.path / "evidence", images, answers["images"])
    maker.evidence(wrong_images=answers, pictures=pictures, wrong_sheet=sheet)
    # A run of an older version has no training images for the table.
    here = visit(
        f"{write_report(maker.path).as_uri()}#model", viewport={"width": 390, "height": 800}
    )
    page = here.page
    assert "answered 15 test images wrongly" in page.inner_text("#fig-wrong")
    page.click("#wrong-all summary")
    assert page.inner_text("#wrong-all summary") == "Table of the first 12 of 15"
    rows = page.locator("#wrong-table tbody tr:visible")
    for n in (0, 5, 11):
        thumb = rows.nth(n).locator(".thumb")
        thumb.scroll_into_view_if_needed()
        with Image.open(BytesIO(thumb.screenshot())) as seen:
            # Its edges may lie between two pixels of the screen.
            pixels = np.asarray(seen.convert("RGB"), dtype=float)[2:-2, 2:-2]
        assert pixels.min() > shades[n] - 8
        assert pixels.max() < shades[n] + 8
    cells = page.locator("#wrong-pictures .cell:visible")
    assert (rows.count(), cells.count()) == (12, 3)
    # Class 1 has three images, and three of class 0 were taken for it.
    page.select_option("#wrong-class", shown[1])
    assert (rows.count(), cells.count()) == (6, 2)
    told = page.inner_text("#fig-wrong [role=status]")
    assert told == "3 of this class, 3 predicted as it, of those listed"
    page.select_option("#wrong-class", EVIL)
    assert (rows.count(), cells.count()) == (3, 1)
    page.select_option("#wrong-class", "")
    assert rows.count() == 12
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert here.complaints == []
    folder = os.environ.get("GSFL_TUNE_SCREENSHOTS")
    if folder:
        page.locator("#fig-wrong").screenshot(path=f"{folder}/wrong.png")


def shade_of(locator):
    """The mean colour in the middle of an element, as the screen shows it."""
    locator.scroll_into_view_if_needed()
    with Image.open(BytesIO(locator.screenshot())) as seen:
        pixels = np.asarray(seen.convert("RGB"), dtype=float)[8:-8, 8:-8]
    assert np.ptp(pixels, axis=(0, 1)).max() < 24
    return pixels.mean(axis=(0, 1))


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 390)])
def test_every_listed_image_stands_beside_training_images_of_both_classes(
    visit, tmp_path, theme, width
):
    maker = RunMaker(tmp_path / "run").begin().search().finish()
    answers, dataset, nearest = many_wrong(60, classes=len(maker.names))
    folder = maker.path / "evidence"
    maker.evidence(
        wrong_images=answers,
        wrong_sheet=wrong_sheet(folder, dataset.test, answers["images"]),
        wrong_nearest=nearest_sheet(folder, dataset, answers["images"], nearest),
    )
    here = visit(
        f"{write_report(maker.path).as_uri()}#model",
        color_scheme=theme,
        viewport={"width": width, "height": 800},
    )
    page = here.page
    page.click("#wrong-all summary")
    rows = page.locator("#wrong-table tbody tr:visible")
    assert rows.count() == 60
    for number in (0, 31, 59):
        row, each = rows.nth(number), answers["images"][number]
        for column, places in ((2, nearest.true), (3, nearest.predicted)):
            cell = row.locator(f"td:nth-child({column})")
            place = int(places[number])
            thumb = cell.get_by_role("img")
            assert shade_of(thumb) == pytest.approx(dataset.pool.colours[place], abs=10)
            key = "label" if column == 2 else "predicted"
            assert cell.locator("[data-key]").inner_text() == maker.names[each[key]]
            assert cell.locator("small").inner_text() == f"{place}.jpg"
            told = "nearest of 30 of the 45 training images"
            assert thumb.get_attribute("title") == f"train/{place}.jpg: {told}"
    # On a phone the three images of a row are seen without scrolling to the side.
    page.evaluate("document.querySelector('#wrong-scroll').scrollTo(0, 0)")
    box = rows.nth(0).locator("td:nth-child(3) .thumb").bounding_box()
    assert box["x"] + box["width"] <= width
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.click("#wrong-table thead th:nth-child(3) button")
    said = rows.locator("td:nth-child(3) [data-key]").all_inner_texts()
    assert said == sorted(said, key=lambda name: int(name.split()[1]))
    assert len(set(said)) > 5
    page.click("#wrong-table thead th:nth-child(1) button")
    paths = rows.locator("td:nth-child(1)").all_inner_texts()
    assert paths == [f"gulls/{n}.jpg" for n in range(60)]
    page.click("#wrong-table thead th:nth-child(1) button")
    assert rows.locator("td:nth-child(1)").first.inner_text() == "gulls/59.jpg"
    assert here.complaints == []
    assert [url for url in here.requests if not url.startswith(("file:", "data:"))] == []
    shots = os.environ.get("GSFL_TUNE_SCREENSHOTS")
    if shots:
        page.locator("#wrong-all").screenshot(path=f"{shots}/wrong-table-{theme}-{width}.png")


def test_the_page_with_500_wrong_images_and_a_thousand_training_images_is_not_heavy(
    visit, tmp_path
):
    names = tuple(f"gull {n}" for n in range(200))
    maker = RunMaker(tmp_path / "run", names=names).begin().search().finish()
    maker.evidence()
    without = write_report(maker.path).stat().st_size
    # Noise is what a JPEG holds worst.
    answers, dataset, nearest = many_wrong(500, classes=200, noise=True)
    folder = maker.path / "evidence"
    maker.evidence(
        wrong_images=answers,
        wrong_sheet=wrong_sheet(folder, dataset.test, answers["images"]),
        wrong_nearest=nearest_sheet(folder, dataset, answers["images"], nearest),
    )
    page = write_report(maker.path)
    assert page.stat().st_size - without < 2_600_000
    here = visit(f"{page.as_uri()}#model")
    here.page.click("#wrong-all summary")
    assert here.page.locator("#wrong-table .near").count() == 1000
    assert here.complaints == []


def test_the_table_says_why_it_has_no_training_images(visit, tmp_path):
    maker = RunMaker(tmp_path / "run").begin().search().finish()
    answers, dataset, nearest = many_wrong(12, classes=len(maker.names))
    maker.evidence(wrong_images=answers)
    here = visit(f"{write_report(maker.path).as_uri()}#model")
    here.page.click("#wrong-all summary")
    told = "No training images beside the classes. evidence.json lacks this part"
    assert here.page.inner_text("#wrong-lacks").startswith(told)
    assert here.page.locator("#wrong-table .thumb").count() == 0

    folder = maker.path / "evidence"
    sheet = nearest_sheet(folder, dataset, answers["images"], nearest)
    (maker.path / sheet["file"]).unlink()
    maker.evidence(wrong_images=answers, wrong_nearest=sheet)
    here = visit(f"{write_report(maker.path).as_uri()}#model")
    here.page.click("#wrong-all summary")
    assert "evidence/wrong-nearest.jpg is gone" in here.page.inner_text("#wrong-lacks")
    assert here.page.locator("#wrong-table tbody tr").count() == 12
    assert here.complaints == []


def test_rows_behind_those_with_pictures_are_words(visit, tmp_path):
    maker = RunMaker(tmp_path / "run").begin().search().finish()
    answers, dataset, _ = many_wrong(60, classes=len(maker.names))
    folder = maker.path / "evidence"
    sheet = wrong_sheet(folder, dataset.test, answers["images"][:40])
    maker.evidence(wrong_images=answers, wrong_sheet=sheet)
    here = visit(f"{write_report(maker.path).as_uri()}#model")
    here.page.click("#wrong-all summary")
    pictured = here.page.inner_text("#wrong-pictured")
    assert pictured == "The 40 most confident have small pictures."
    rows = here.page.locator("#wrong-table tbody tr:visible")
    assert rows.count() == 60
    assert [rows.nth(n).locator(".thumb").count() for n in (39, 40, 59)] == [1, 0, 0]
    assert here.complaints == []
