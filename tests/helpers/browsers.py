"""Debian's Chromium with one page in it, which notes what it says and what it asks for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

SIZES = {"screen": (1280, 800), "phone": (390, 844)}


@contextmanager
def chromium() -> Iterator[Any]:
    """The browser; without it the test is skipped, or fails in CI, which installs it."""
    program = shutil.which("chromium")
    if program is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs Debian's package chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])  # which root must give up
        yield opened
        opened.close()


class Window:
    """A page of a file."""

    def __init__(self, browser: Any, file: Path, size: str = "screen", scheme: str = "light") -> None:
        width, height = SIZES[size]
        self.context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: self.said.append(dialog.message))
        network = self.context.new_cdp_session(self.page)
        network.on("Network.requestWillBeSent", lambda event: self.asked.append(event["request"]["url"]))
        network.send("Network.enable")
        self.page.goto(file.as_uri())
        self.page.wait_for_load_state("networkidle")
