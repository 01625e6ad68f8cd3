"""A headless Chromium, if this machine has one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str:
    """Path of the browser; skips the test where there is none."""
    wanted = os.environ.get("GSFL_TUNE_CHROMIUM")
    found = wanted or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"needs a browser: set GSFL_TUNE_CHROMIUM, or put {NAMES[0]} on the PATH")
    return found


@contextmanager
def launched() -> Iterator[Any]:
    """A Playwright browser."""
    path = chromium()
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


class Visit:
    """A page with what it asked for and what it complained of.

    Args:
        browser: From `launched`.
        url: Where to.
        options: Of the browser's context: size, theme.
    """

    def __init__(self, browser: Any, url: str, **options: Any) -> None:
        self._context = browser.new_context(**options)
        self.page = self._context.new_page()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on(
            "console",
            lambda message: (
                self.complaints.append(message.text)
                if message.type in ("error", "warning")
                else None
            ),
        )
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        # For a machine that is busy with other things.
        self.page.set_default_timeout(60_000)
        self.page.goto(url)

    def close(self) -> None:
        self._context.close()
