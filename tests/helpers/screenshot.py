"""The picture of a report in README.md: python tests/helpers/screenshot.py runs/demo/audit/report.html FILE.png"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

SIZE = {"width": 1280, "height": 645}
COLOURS = 64  # a page of text and flat colours has few


def take(report: Path, picture: Path) -> None:
    """Write the first screen of a report as a small PNG file, light, by Debian's Chromium."""
    from PIL import Image
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE, color_scheme="light")
        page.goto(report.resolve().as_uri())
        shot = page.screenshot()
        browser.close()
    picture.parent.mkdir(parents=True, exist_ok=True)
    Image.open(io.BytesIO(shot)).convert("RGB").quantize(COLOURS).save(picture, optimize=True)


if __name__ == "__main__":
    take(Path(sys.argv[1]), Path(sys.argv[2]))
