"""The site: it builds without a warning, is whole, and asks nobody else for anything."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

pytest.importorskip("mkdocs", reason="the site needs pip install 'gsfl-tune[docs]'")

ROOT = Path(__file__).parents[2]
# What makes a browser fetch, by element.
FETCHED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}
# Says where something is, and is not fetched.
NOT_FETCHED = {"canonical", "prev", "next", "edit"}


class Page(HTMLParser):
    """Links, anchors and what is fetched."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.ids |= {given[key] for key in ("id", "name") if key in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        wanted = FETCHED.get(tag)
        if wanted in given and given.get("rel") not in NOT_FETCHED:
            self.fetched.append(given[wanted])


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        # Griffe reads the package's source; nothing of it is imported.
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, Page]:
    found = {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    assert len(found) > 15
    return found


def test_nothing_is_fetched_from_elsewhere(site, pages):
    for path, page in pages.items():
        for address in page.fetched:
            parts = urlsplit(address)
            assert not parts.netloc, f"{path.name} fetches {address}"
    for style in site.rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        found = re.findall(r"(?:url\(|@import )['\"]?((?:https?:)?//[^'\")\s]+)", text)
        assert not found, f"{style.name} fetches {found}"


def test_links_lead_to_files_and_headings(site, pages):
    missing = []
    for path, page in pages.items():
        if path.name == "404.html":
            continue
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                missing.append(f"{path.relative_to(site)}: {link}")
            elif target.suffix == ".html" and parts.fragment:
                anchors = pages[target].ids
                missing += [
                    f"{path.relative_to(site)}: {link}"
                    for fragment in [unquote(parts.fragment)]
                    if fragment not in anchors
                ]
    assert missing == []


def test_programs_that_pages_mention_come_along(site):
    shown = (site / "repository" / "search_spaces" / "image_folder.yaml.html").read_text("utf-8")
    assert "feature_scale" in shown
