"""A headless Chromium for tests of the page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
LONGEST_MS = 20_000.0


def find_chromium() -> str | None:
    """Return where Chromium is, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def require_chromium() -> str:
    """Return where Chromium is; skip the test when it is not there, in CI fail."""
    found = find_chromium()
    if found is None:
        words = "the page's tests need Chromium: apt-get install chromium"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(words)
    return found


@contextmanager
def chromium(**context) -> Iterator:
    """Give a page in a browser of its own; ``page.told`` collects what it complains about."""
    path = require_chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            page = browser.new_context(**context).new_page()
            page.set_default_timeout(LONGEST_MS)
            page.told = []
            page.on("pageerror", lambda error: page.told.append(str(error)))
            page.on("console", lambda m: m.type == "error" and page.told.append(m.text))
            yield page
        finally:
            browser.close()
