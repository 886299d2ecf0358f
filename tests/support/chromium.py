"""The browser of the tests: Debian's Chromium, without a window."""

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright


@contextmanager
def chromium() -> Generator[Browser]:
    """Where none is installed the test is skipped, but never where CI is true."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None and os.environ.get("CI") != "true":
        pytest.skip("Chromium is not installed: scripts/test does so for root, on Debian")
    assert path is not None, "Chromium is not installed"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])  # its sandbox refuses root
        try:
            yield browser
        finally:
            browser.close()
