"""The page of the server in a real browser: mouse, keyboard, phone, light and dark."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.report.browser import Visit, launched
from tests.serve.conftest import encoded, jpeg
from tests.serve.looks import EVIL

WAIT = {"timeout": 60_000}


@pytest.fixture(scope="module")
def browser():
    with launched() as found:
        yield found


@pytest.fixture
def visit(browser, looks):
    visits = []

    def go(**options):
        visits.append(Visit(browser, f"http://127.0.0.1:{looks.port}/", **options))
        return visits[-1]

    yield go
    for each in visits:
        each.close()


def choose(page, data: bytes, name: str = "my bird.jpg", where: str = "#file") -> None:
    page.set_input_files(where, {"name": name, "mimeType": "image/jpeg", "buffer": data})


def has_text(page, where: str, text: str) -> None:
    """Waits; the page's policy forbids `wait_for_function`, which evaluates a string."""
    page.locator(where, has_text=text).wait_for(**WAIT)


def shot(page, name: str) -> None:
    """Keeps a picture for whoever wants to look at the page."""
    folder = os.environ.get("GSFL_TUNE_SCREENSHOTS")
    if folder:
        page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


@pytest.mark.parametrize(
    ("theme", "width"),
    [("light", 390), pytest.param("dark", 390, marks=pytest.mark.slow), ("dark", 1280)],
)
def test_an_image_is_answered_with_map_and_neighbours(visit, looks, theme, width):
    here = visit(color_scheme=theme, viewport={"width": width, "height": 800})
    page, data = here.page, jpeg(300, 240, seed=2)
    has_text(page, "#about", "6 classes; 50.0 % of the test images were right")
    choose(page, data)
    page.wait_for_selector("#near:not([hidden])", **WAIT)
    (found,) = looks.predict(data, "?threshold=auto").json["predictions"]
    rows = page.locator("#classes tr")
    assert rows.count() == 5
    assert EVIL in found["classes"]
    assert page.locator("#classes th").all_inner_texts() == found["classes"]
    shares = [f"{100 * each:.1f} %" for each in found["probabilities"]]
    assert [text.strip() for text in page.locator("#classes td").all_inner_texts()] == shares
    assert found["unknown"] == page.is_visible("#unknown")
    assert page.inner_text("#answer") == ("Unknown" if found["unknown"] else found["classes"][0])
    assert page.locator("#neighbours li").count() == 6
    assert page.get_attribute("#preview", "alt") == "Your image, my bird.jpg"
    page.click("#map")
    page.wait_for_selector("#map[aria-pressed=true]", **WAIT)
    assert page.get_attribute("#preview", "src").startswith("data:image/jpeg")
    assert f"evidence for {found['classes'][0]}" in page.get_attribute("#preview", "alt")
    assert page.is_visible("#scale")
    page.select_option("#map-class", found["classes"][1])
    has_text(page, "#caption", f"Evidence for {found['classes'][1]}")
    widths = "[...document.images].map((each) => each.naturalWidth)"
    assert min(page.evaluate(widths)) > 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.title() == "zoo · gsfl-tune"
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert back == {"light": "rgb(244, 246, 248)", "dark": "rgb(18, 22, 26)"}[theme]
    shot(page, f"serve-{theme}-{width}")
    page.click("#map")
    assert page.get_attribute("#preview", "src").startswith("blob:")
    assert here.complaints == []
    base = f"http://127.0.0.1:{looks.port}/"
    assert [url for url in here.requests if not url.startswith((base, "blob:", "data:"))] == []


def test_a_keyboard_is_enough_and_changes_are_said(visit):
    page = visit(viewport={"width": 900, "height": 700}).page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "file"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "camera"
    assert page.get_attribute("#camera", "capture") == "environment"
    ring = "getComputedStyle(document.querySelector('#camera-label')).outlineStyle"
    assert page.evaluate(ring) == "solid"
    assert page.get_attribute("#status", "aria-live") == "polite"
    choose(page, jpeg(200, 200), where="#camera")
    page.wait_for_selector("#near:not([hidden])", **WAIT)
    assert "%" in page.inner_text("#status")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "map"
    page.keyboard.press("Enter")
    page.wait_for_selector("#map[aria-pressed=true]", **WAIT)
    assert page.inner_text("#status").startswith("Heat map for ")
    assert page.evaluate("document.activeElement.id") == "map"
    # Everything that can be used or seen has a name.
    tree = page.evaluate(
        """() => [...document.querySelectorAll("input, button, select")].map((each) =>
          each.labels && each.labels.length ? each.labels[0].innerText : each.innerText)"""
    )
    assert all(name.strip() for name in tree)


DROP = """(kind) => {
  const bytes = new Uint8Array(window.theBytes);
  const file = new File([bytes], kind === "text" ? "a.txt" : "dropped.png",
    { type: kind === "text" ? "text/plain" : "image/png" });
  const data = new DataTransfer();
  data.items.add(file);
  const event = kind === "paste"
    ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true })
    : new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
  document.body.dispatchEvent(event);
}"""


def test_an_image_is_dropped_or_pasted(visit):
    from PIL import Image

    page = visit().page
    data = encoded(Image.new("RGB", (90, 90), (10, 90, 160)), "PNG")
    page.evaluate("bytes => { window.theBytes = bytes; }", list(data))
    for kind in ("drop", "paste"):
        page.evaluate("document.querySelector('#near').hidden = true")
        page.evaluate(DROP, kind)
        page.wait_for_selector("#near:not([hidden])", **WAIT)
        assert page.inner_text("#caption") == "dropped.png"
    page.evaluate(DROP, "text")
    assert page.inner_text("#problem") == "What was dropped is not an image file."


def test_what_is_wrong_is_said_and_the_next_image_works(visit):
    here = visit()
    page = here.page
    choose(page, b"<svg></svg>", "no image.jpg")
    page.wait_for_selector("#problem:not([hidden])", **WAIT)
    assert page.inner_text("#problem").startswith("Not an image in one of the formats JPEG")
    assert page.get_attribute("#problem", "role") == "alert"
    assert not page.is_visible("#result")
    choose(page, b"x" * 400_000)
    has_text(page, "#problem", "0.4 MB")
    choose(page, jpeg(200, 160))
    page.wait_for_selector("#near:not([hidden])", **WAIT)
    assert not page.is_visible("#problem")
    # The refused request is in the browser's console, nothing else.
    assert all("415" in complaint for complaint in here.complaints)


def test_an_image_that_the_browser_cannot_show_is_answered(visit):
    from PIL import Image

    page = visit().page
    data = encoded(Image.new("RGB", (90, 90), (10, 90, 160)), "JPEG2000")
    page.set_input_files("#file", {"name": "a.jp2", "mimeType": "image/jp2", "buffer": data})
    page.wait_for_selector("#near:not([hidden])", **WAIT)
    has_text(page, "#caption", "cannot show the image")
    page.click("#map")
    page.wait_for_selector("#map[aria-pressed=true]", **WAIT)
    assert page.is_visible("#preview")
