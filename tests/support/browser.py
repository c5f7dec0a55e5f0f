"""Headless Chromium for tests: its own fixture, skipped where it is missing unless it is required.

`scripts/browser` installs what is needed; EDGEPLAN_REQUIRE_BROWSER=1 turns skips into failures.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A playwright `Browser`."""
    is_required = os.environ.get("EDGEPLAN_REQUIRE_BROWSER") == "1"
    missing = pytest.fail if is_required else pytest.skip
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright is not installed: scripts/browser")
    with sync_playwright() as driver:
        path = next(filter(None, map(shutil.which, NAMES)), driver.chromium.executable_path)
        if not os.path.exists(path):
            missing("there is no Chromium: scripts/browser")
        # without a sandbox of its own it starts in containers and as root; the pages are ours
        launched = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield launched
        launched.close()
