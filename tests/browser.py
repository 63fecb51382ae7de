"""A headless browser for the tests: Chromium or Chrome where this machine has one, and no way to the outside."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="the browser tests need playwright")

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
ONLY_LOOPBACK = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"


def find_browser() -> str:
    """The path of a browser; skips the test, and says so, where there is none."""
    found = next((path for path in map(shutil.which, NAMES) if path), None)
    if found is None:
        pytest.skip(f"there is no browser here: none of {', '.join(NAMES)} is on the path")
    return found


@contextmanager
def open_browser() -> Iterator[playwright.Browser]:
    """A headless browser that reaches loopback and files only."""
    as_root = hasattr(os, "geteuid") and os.geteuid() == 0
    arguments = [ONLY_LOOPBACK, *(["--no-sandbox"] if as_root else [])]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=find_browser(), args=arguments)
        yield browser
        browser.close()


def listen(page: playwright.Page) -> list[str]:
    """A list that fills with what goes wrong on `page`: failed requests, errors, and requests to a host outside."""
    wrong: list[str] = []

    def look_at(request: playwright.Request) -> None:
        if not request.url.startswith(("file:", "data:", "blob:", "http://127.0.0.1:", "ws://127.0.0.1:")):
            wrong.append(f"asks a host outside: {request.url}")

    def look_at_failure(request: playwright.Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # the page went on before it had everything; no fault of the server's
            wrong.append(f"failed: {request.url} ({request.failure})")

    page.on("request", look_at)
    page.on("requestfailed", look_at_failure)
    page.on("response", lambda answer: wrong.append(f"{answer.status}: {answer.url}") if answer.status >= 400 else None)
    page.on("console", lambda message: wrong.append(f"console: {message.text}") if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(f"script error: {error}"))
    return wrong


def screenshot(page: playwright.Page, name: str) -> None:
    """Save what the browser shows, where COURSE_SCREENSHOTS names a folder; for whoever wants to look."""
    if folder := os.environ.get("COURSE_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")
