"""The server, its page and a browser together, with the model and the voices that `make serve` starts with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving_process import Server

ROOT = Path(__file__).resolve().parent.parent
MODEL, ADAPTERS = ROOT / "models" / "storyteller-llama", ROOT / "models" / "adapters"
VOICES = ("pirate", "telegram", "verse", "whisper")
PROMPT = "Once upon a time there was a little mouse who"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(ROOT, "--model", MODEL, "--adapters", ADAPTERS) as server:
        yield server


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    import browser

    with browser.open_browser() as opened:
        yield opened


@pytest.fixture
def page(chromium: Any, server: Server) -> Iterator[Any]:
    """The page, connected; nothing has gone wrong by its end."""
    import browser

    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(120_000)
    wrong = browser.listen(page)
    page.goto(server.url)
    page.locator("#link", has_text="Connected").wait_for()
    yield page
    browser.screenshot(page, "live")
    page.close()
    assert wrong == []


def answer_of(server: Server, model: str, max_tokens: int) -> str:
    """A greedy answer over HTTP."""
    body = {"model": model, "prompt": PROMPT, "max_tokens": max_tokens, "temperature": 0}
    with server.client() as client:
        return client.post("/v1/completions", json=body).json()["choices"][0]["text"]


@pytest.mark.parametrize("voice", [MODEL.name, *VOICES])
def test_an_answer_on_the_page_is_the_one_over_http(page: Any, server: Server, voice: str) -> None:
    page.locator("#prompt").fill(PROMPT)
    page.locator("#voice").select_option(voice)
    page.locator("#budget").fill("40")
    page.locator("#temperature").fill("0")
    page.locator("#send").click()
    page.locator("#ask-says", has_text="The answer is complete").wait_for()
    expected = answer_of(server, voice, 40)
    assert expected and page.locator("#answer").text_content() == PROMPT + expected


def test_the_voices_are_not_the_models_own_nor_each_others(server: Server) -> None:
    assert len({answer_of(server, model, 40) for model in (MODEL.name, *VOICES)}) == 1 + len(VOICES)


def test_the_course_workload_is_served_and_drawn(page: Any) -> None:
    page.get_by_label("Steps shown").select_option("240")
    page.locator("#send-load").click()
    page.locator("#load-says", has_text="All 32 answers were complete").wait_for()
    assert page.locator("#ended tr").count() >= 1 and "No request" not in page.locator("#ended").inner_text()
    slots = page.evaluate("runs(shownSteps()).map(bar => bar.slot)")
    assert len(slots) >= 32 and set(slots) == set(range(8))
