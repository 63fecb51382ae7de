"""The server's page in a browser, before a small server of the tests (`page_stage`) that says what a test wants."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from page_stage import (
    END,
    PAGE,
    PALE_TEXTS,
    SERVER,
    VOICES,
    Asked,
    Stage,
    course,
    link_is,
    on_stage,
    open_page,
    show,
    simulate,
    wait_for,
)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    import browser

    with browser.open_browser() as opened:
        yield opened


@pytest.fixture
def stage() -> Iterator[Stage]:
    with on_stage() as stage:
        yield stage


@pytest.fixture
def page(chromium: Any, stage: Stage) -> Iterator[Any]:
    """The page, connected."""
    with open_page(chromium, stage) as page:
        link_is(page, "Connected")
        yield page


def drawn(page: Any) -> list[dict]:
    """The bars in the drawing, by the page's own account."""
    bars = page.evaluate("runs(shownSteps())")
    return [{**bar, "kinds": "".join(cell["kind"][0] for cell in bar["cells"])} for bar in bars]


def expected(steps: list[dict]) -> dict[int, tuple]:
    """For each request of a stream: its slot, the columns of its first and last cell, and the kinds of its cells."""
    seen: dict[int, list] = {}
    for column, step in enumerate(steps):
        for row in step["rows"]:
            seen.setdefault(row["number"], []).append((column, row["slot"], row["kind"][0]))
    return {
        number: (cells[0][1], cells[0][0], cells[-1][0], "".join(kind for _, _, kind in cells))
        for number, cells in seen.items()
    }


# The colours of a cell's pixels, as "r,g,b", from so far below its slot's top; without its edges.
PIXELS = """
([column, slot, from, to]) => {
  const canvas = $("drawing"), at = layout(canvas.clientWidth), scale = devicePixelRatio;
  const box = [at.x(column) + 2, (slot + from) * at.rowH, at.columnW - 4, (to - from) * at.rowH];
  const data = canvas.getContext("2d").getImageData(...box.map(size => Math.round(size * scale))).data;
  const colours = new Set();
  for (let place = 0; place < data.length; place += 4) colours.add(data.slice(place, place + 3).join());
  return [...colours];
}
"""
TOP, LOW = (0.14, 0.30), (0.45, 0.85)  # of a slot's height: above a decode cell, and inside every cell


def pixels(page: Any, column: int, slot: int, part: tuple[float, float]) -> list[str]:
    """The colours in a part of a cell."""
    return page.evaluate(PIXELS, [column, slot, *part])


def test_page_contains_all_it_needs() -> None:
    text = PAGE.read_text(encoding="utf-8")
    policy = re.search(r"default-src[^\"]+", text)
    assert policy is not None
    assert "default-src 'none'" in policy[0] and "connect-src 'self'" in policy[0]
    assert not re.search(r"https?:|//cdn|@import|\bsrc=|localStorage|sessionStorage|cookie|innerHTML|eval\(", text)


def test_page_says_what_to_do_first_and_rests_when_nothing_happens(chromium: Any, stage: Stage) -> None:
    import browser

    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    wrong = browser.listen(page)
    page.goto(stage.url)
    link_is(page, "Connected")
    assert "Nothing has run yet" in page.locator("#nothing").inner_text()
    assert "Send the course workload" in page.locator("#nothing").inner_text()
    assert page.get_by_role("button", name="Send the course workload").is_enabled()
    described = page.locator("#server").inner_text()
    assert all(text in described for text in ("fp32", "8 slots", "512 blocks of 16 tokens", "pirate"))
    assert page.get_by_label("Voice").last.locator("option").count() == len(VOICES)
    page.wait_for_timeout(1500)
    frames = page.evaluate("state.frames")
    page.wait_for_timeout(1000)
    assert page.evaluate("state.frames") == frames
    assert wrong == []
    page.close()


def test_hidden_page_draws_nothing_and_catches_up(page: Any, stage: Stage) -> None:
    steps = simulate(course(VOICES))
    page.wait_for_timeout(500)
    page.evaluate("Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
    frames = page.evaluate("state.frames")
    stage.say(*steps)
    wait_for(lambda: page.evaluate("state.latest?.step") == steps[-1]["step"], "the page took no steps")
    page.wait_for_timeout(500)
    assert page.evaluate("state.frames") == frames
    page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    wait_for(lambda: page.evaluate("state.frames") > frames, "the page did not draw")


def test_every_request_is_a_bar_in_its_slot(page: Any, stage: Stage) -> None:
    steps = simulate(course(VOICES, cached=16, prompt=40))
    show(page, stage, steps)
    bars = drawn(page)
    assert {bar["number"]: (bar["slot"], bar["from"], bar["to"], bar["kinds"]) for bar in bars} == expected(steps)
    assert len(bars) == 32
    assert {bar["number"]: bar["model"] for bar in bars} == {number: VOICES[number % 5] for number in range(32)}
    assert any("pp" in bar["kinds"] for bar in bars), "the stream has no prompt in several chunks"
    assert not page.locator("#nothing").is_visible()


def test_neighbours_have_different_colours(page: Any, stage: Stage) -> None:
    show(page, stage, simulate(course(VOICES)))
    bars = drawn(page)
    for slot in range(SERVER["rows"]):
        own = [bar for bar in bars if bar["slot"] == slot]
        assert all(one["colour"] != other["colour"] for one, other in pairwise(own))
        for one in own:
            beside = [bar for bar in bars if bar["slot"] == slot + 1 and bar["from"] <= one["to"]]
            assert all(bar["colour"] != one["colour"] for bar in beside if one["from"] <= bar["to"])


def test_prefill_decode_cached_tokens_and_voices_are_told_apart_without_colour(page: Any, stage: Stage) -> None:
    asked = [Asked(0, "storyteller", 7, 12), Asked(1, "storyteller", 20, 12, cached=16), Asked(2, "pirate", 7, 12)]
    show(page, stage, simulate(asked), columns=40)
    (fill,) = pixels(page, 6, 0, LOW)
    above = pixels(page, 6, 0, TOP)
    assert fill not in above, "a decode cell is as tall as a prefill cell"
    assert pixels(page, 0, 0, TOP) == [fill]
    (hollow,) = pixels(page, 0, 1, TOP)
    assert hollow == "255,255,255"
    assert pixels(page, 6, 1, LOW) != [hollow]
    assert len(pixels(page, 6, 2, LOW)) > 1, "the voice has no hatch"
    assert pixels(page, 20, 0, LOW) == above, "an empty slot is drawn"


# Keep what is written into drawings, by the number of the frame.
RECORD = """
() => {
  const fillText = CanvasRenderingContext2D.prototype.fillText;
  CanvasRenderingContext2D.prototype.fillText = function (text, x, y) {
    if (this.canvas.id === "drawing") window.written.push([String(text), x, y]);
    fillText.call(this, text, x, y);
  };
}
"""
WRITTEN = "() => { window.written = []; drawTimeLine(); return window.written; }"


def test_number_stands_in_the_first_cells_of_a_bar(page: Any, stage: Stage) -> None:
    show(page, stage, simulate(course(["storyteller"], first=100)), columns=120)
    page.evaluate(RECORD)
    written = page.evaluate(WRITTEN)
    left, width, height, axis = page.evaluate(
        "(at => [at.x(0), at.columnW, at.rowH, at.axis])(layout($('drawing').clientWidth))"
    )
    for bar in drawn(page):
        ((x, y),) = [(x, y) for text, x, y in written if text == str(bar["number"]) and y < axis]
        assert 0 < x - (left + bar["from"] * width) < width
        assert bar["slot"] == y // height
    steps = [int(text) for text, _, y in written if text.isdigit() and y > axis]
    assert steps == list(range(10, 130, 5))


def test_number_moves_along_when_the_first_cell_is_out_of_sight(page: Any, stage: Stage) -> None:
    show(page, stage, simulate([Asked(7, "storyteller", 5, 100)]), columns=40)
    page.evaluate(RECORD)
    assert [text for text, _, _ in page.evaluate(WRITTEN)].count("7") == 1


def test_pauses_and_missing_steps_are_marked(page: Any, stage: Stage) -> None:
    first = simulate([Asked(0, "storyteller", 5, 10)])
    second = simulate([Asked(1, "storyteller", 5, 10)], len(first), first[-1]["time_s"] + 9)
    third = simulate([Asked(2, "storyteller", 5, 10)], len(first) + len(second) + 4, second[-1]["time_s"] + 0.02)
    show(page, stage, first + second + third)
    marks = page.evaluate("shownSteps().map(step => [step.step, Math.round(step.pause_s ?? 0), step.missing ?? 0])")
    assert [mark for mark in marks if any(mark[1:])] == [[10, 9, 0], [24, 0, 4]]


def test_waiting_requests_and_blocks_stand_below_the_same_steps(page: Any, stage: Stage) -> None:
    steps = simulate(course(["storyteller"]))
    show(page, stage, steps, columns=40)
    shade = """([column, top]) => {
      const at = layout($("drawing").clientWidth), place = [at.x(column) + 3, at[top] + 1, 1, 1];
      const scaled = place.map(size => Math.round(size * devicePixelRatio));
      return $("drawing").getContext("2d").getImageData(...scaled).data.slice(0, 3).join();
    }"""
    page.evaluate("state.anchor = 39; drawTimeLine()")
    full = page.evaluate(shade, [0, "waiting"])
    later = next(column for column in range(40) if steps[column]["waiting"] < 20)
    assert page.evaluate(shade, [later, "waiting"]) != full
    assert page.locator("#now-waiting").inner_text() == "0"
    blocks = steps[-1]["blocks"]
    told = page.locator("#now-blocks").inner_text()
    assert told == f"{blocks['used']} used, {blocks['cached']} cached, {blocks['free']} free"


def test_table_tells_times_with_units(page: Any, stage: Stage) -> None:
    show(page, stage, simulate(course(VOICES, cached=16, prompt=40)))
    rows = page.locator("#ended tr")
    assert rows.count() == 12
    heads = page.locator("thead th").all_inner_texts()
    assert [head for head in heads if "ms" in head] == ["TTFT (ms)", "TPOT (ms)"]
    first = dict(zip(heads, rows.first.locator("td").all_inner_texts(), strict=True))
    number = int(first["No."])
    assert first["Voice"] == VOICES[number % 5]
    assert (first["Prompt (tokens)"], first["Cached (tokens)"]) == ("40", "16")
    assert (first["TTFT (ms)"], first["TPOT (ms)"]) == (str(20 + 10 * number), "12")
    assert page.locator("#medians").inner_text().split()[-3:] == ["32", "175", "12"]


def test_a_cell_is_explained_to_mouse_and_keyboard(page: Any, stage: Stage) -> None:
    show(page, stage, simulate([Asked(3, "storyteller", 7, 30), Asked(4, "pirate", 20, 30, cached=16)]), columns=40)
    place = page.evaluate("(at => [at.x(0.5), 1.5 * at.rowH])(layout($('drawing').clientWidth))")
    page.locator("#drawing").hover(position={"x": place[0], "y": place[1]})
    page.locator("#cell", has_text="prefill of 4 prompt tokens; 16 tokens before them were found").wait_for()
    page.mouse.move(0, 0)
    page.locator("#drawing").focus()
    page.keyboard.press("ArrowLeft")
    page.locator("#cell", has_text="Step 29 (18 ms), slot 0: request 3, decode").wait_for()
    page.keyboard.press("ArrowDown")
    page.locator("#cell", has_text="slot 1: request 4 in the voice “pirate”, decode").wait_for()
    assert page.locator("#hold").get_attribute("aria-pressed") == "true"
    page.keyboard.press("End")
    page.locator("#hold[aria-pressed=false]").wait_for()
    assert "2 of 8 slots ran" in page.locator("#drawing").get_attribute("aria-label")
    page.get_by_text("The newest step in words").click()
    page.locator("#words-list li").nth(7).wait_for()
    assert "slot 7: empty" in page.locator("#words-list li").nth(7).inner_text()


def test_held_drawing_stays_while_steps_go_on(page: Any, stage: Stage) -> None:
    steps = simulate(course(["storyteller"]))
    show(page, stage, steps[:80], columns=40)
    page.get_by_role("button", name="Hold the drawing").click()
    show(page, stage, steps[80:], columns=40)
    assert page.evaluate("shownSteps().at(-1).step") == 79
    page.get_by_label("Look back").fill("60")
    assert page.evaluate("shownSteps().at(-1).step") == 60
    page.get_by_role("button", name="Go on with the newest step").click()
    assert page.evaluate("shownSteps().at(-1).step") == steps[-1]["step"]


def test_answer_streams_in(page: Any, stage: Stage) -> None:
    import browser

    wrong = browser.listen(page)
    page.get_by_label("Prompt", exact=True).fill("Once upon a time")
    page.locator("#voice").select_option("whisper")
    page.get_by_role("button", name="Send", exact=True).click()
    page.get_by_text("The answer is streaming in").wait_for()
    assert page.locator("#answer").inner_text() == "Once upon a timea"
    stage.more.set()
    page.get_by_text("The answer is complete: its budget is used up.").wait_for()
    assert page.locator("#answer").inner_text() == "Once upon a timea mouse."
    assert page.locator("#answer").get_attribute("aria-busy") == "false"
    (body,) = stage.bodies
    wanted = {"model": "whisper", "prompt": "Once upon a time", "max_tokens": 80, "temperature": 0.7, "stream": True}
    assert body == wanted
    assert wrong == []


def test_answer_can_be_stopped(page: Any, stage: Stage) -> None:
    page.get_by_role("button", name="Send", exact=True).click()
    page.get_by_text("The answer is streaming in").wait_for()
    page.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_text("Stopped.").wait_for()
    assert stage.gone.wait(20), "the server was not told"
    assert page.get_by_role("button", name="Send", exact=True).is_enabled()


@pytest.mark.parametrize(("choice", "bodies"), [("storyteller (base model)", 2), ("every voice", 5)])
def test_button_sends_the_course_workload_at_once(page: Any, stage: Stage, choice: str, bodies: int) -> None:
    from build_it.workload import OPENINGS

    page.locator("#load-voice").select_option(label=choice)
    page.get_by_role("button", name="Send the course workload").click()
    wait_for(lambda: len(stage.bodies) == bodies, "not everything was sent while nothing was answered yet")
    sent = [(prompt, body["max_tokens"]) for body in stage.bodies for prompt in body["prompt"]]
    assert sorted(sent) == sorted((OPENINGS[i % 8], 10 if i % 8 else 100) for i in range(32))
    assert {body["model"] for body in stage.bodies} == set(VOICES if bodies == 5 else VOICES[:1])
    assert all(body["stream"] and body["ignore_eos"] for body in stage.bodies)
    stage.more.set()
    page.get_by_text("All 32 answers were complete after").wait_for()
    assert page.get_by_role("button", name="Send the course workload").is_enabled()


def test_prompts_with_a_common_paragraph_begin_in_the_same_way(page: Any, stage: Stage) -> None:
    stage.more.set()
    page.get_by_label("Prompts").select_option("shared")
    page.get_by_role("button", name="Send the course workload").click()
    page.get_by_text("All 32 answers were complete after").wait_for()
    prompts = [prompt for body in stage.bodies for prompt in body["prompt"]]
    assert len({prompt.partition("\n")[0] for prompt in prompts}) == 1
    assert len(prompts) == 32 and len(set(prompts)) == 8


def test_full_server_is_asked_again_when_it_says_so(page: Any, stage: Stage) -> None:
    stage.refuse, stage.pieces = [(503, {"Retry-After": "2"})], ["Now."]
    stage.more.set()
    start = time.monotonic()
    page.get_by_role("button", name="Send", exact=True).click()
    page.get_by_text("The server is full: no, 503 (status 503). It is asked again in 2 s.").wait_for()
    page.get_by_text("The answer is complete").wait_for()
    assert time.monotonic() - start >= 2
    assert len(stage.bodies) == 2


def test_refusals_are_told(page: Any, stage: Stage) -> None:
    stage.refuse = [(404, {}), (503, {})]
    for status in (404, 503):
        page.get_by_role("button", name="Send", exact=True).click()
        page.get_by_text(f"The server refuses: no, {status} (status {status})").wait_for()


def test_errors_in_the_middle_of_an_answer_are_told(page: Any, stage: Stage) -> None:
    stage.more.set()
    stage.pieces = ["a", {"error": {"message": "the forward failed"}}, "b"]
    page.get_by_role("button", name="Send", exact=True).click()
    page.get_by_text("The server refuses: the forward failed").wait_for()
    stage.pieces = ["a", END]
    stage.more.clear()
    page.get_by_role("button", name="Send", exact=True).click()
    page.get_by_text("The answer is streaming in").wait_for()
    stage.more.set()
    page.get_by_text("The server did not answer to the end").wait_for()
    assert page.locator("#answer").inner_text().endswith("whoa")


def test_key_is_asked_for_and_kept_nowhere(chromium: Any, stage: Stage) -> None:
    stage.key = "open sesame"
    stage.more.set()
    with open_page(chromium, stage) as page:
        link_is(page, "The server wants a key")
        assert page.get_by_role("button", name="Send the course workload").is_disabled()
        page.get_by_label("This server was started with a key").fill("wrong")
        page.keyboard.press("Enter")
        page.get_by_label("The server does not know this key").fill("open sesame")
        page.keyboard.press("Enter")
        link_is(page, "Connected")
        assert not page.locator("#key-form").is_visible()
        page.get_by_role("button", name="Send", exact=True).click()
        page.get_by_text("The answer is complete").wait_for()
        kept = "[localStorage.length, sessionStorage.length, document.cookie, $('key').value, location.href]"
        assert page.evaluate(kept) == [0, 0, "", "", stage.url]


def test_lost_connection_is_told_and_taken_up_again(page: Any, stage: Stage) -> None:
    steps = simulate(course(["storyteller"]))
    show(page, stage, steps[:50])
    stage.down = True
    stage.send(END)
    link_is(page, "The connection to the server is lost. Trying again in")
    page.get_by_role("button", name="Try again now").wait_for()
    stage.down = False
    page.evaluate("$('again').click()")  # at once: it is hidden as soon as the page has tried again by itself
    link_is(page, "Connected")
    show(page, stage, steps[60:100])
    assert page.evaluate("[state.steps.length, state.steps[50].missing]") == [90, 10]
    show(page, stage, simulate([Asked(0, "storyteller", 5, 10)]))
    assert page.evaluate("state.steps.length") == 10, "the server counts anew, and the page kept old steps"


def test_page_keeps_a_bounded_number_of_things(page: Any, stage: Stage) -> None:
    step, time_s = 0, 0.0
    for round_number in range(12):
        steps = simulate(course(VOICES, first=1000 * round_number), step, time_s)
        stage.say(*steps)
        step, time_s = step + len(steps), time_s + 0.02 * len(steps)
    wait_for(lambda: page.evaluate("state.latest?.step") == step - 1, "the page took no steps")
    page.wait_for_timeout(600)
    assert step > 1000
    kept = page.evaluate("[state.steps.length, state.ended.length, $('ended').rows.length]")
    assert kept == [480, 100, 12]
    numbers = "new Set(state.steps.flatMap(step => step.rows.map(row => row.number))).size"
    assert page.evaluate(f"[state.requests.size, {numbers}]") == [page.evaluate(numbers)] * 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_page_fits_and_is_readable(chromium: Any, stage: Stage, width: int, scheme: str) -> None:
    import browser

    with open_page(chromium, stage, width, color_scheme=scheme) as page:
        wrong = browser.listen(page)
        link_is(page, "Connected")
        browser.screenshot(page, f"serving-idle-{width}-{scheme}")
        show(page, stage, simulate(course(VOICES)), columns=120 if width > 400 else 40)
        browser.screenshot(page, f"serving-busy-{width}-{scheme}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(PALE_TEXTS) == []
        assert wrong == []


def test_everything_can_be_reached_by_keyboard_and_has_a_name(page: Any, stage: Stage) -> None:
    show(page, stage, simulate(course(VOICES)), columns=40)
    page.locator("h1").click()
    reached = []
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    above = ["send-load", "load-prompts", "load-voice", "drawing", "hold", "back", "columns"]
    wanted = [*above, "prompt", "voice", "budget", "temperature", "send"]
    assert [name for name in dict.fromkeys(reached) if name in wanted] == wanted
    nameless = "[...document.querySelectorAll('input, select, textarea, button')].filter(e => !e.labels?.length"
    assert page.evaluate(f"{nameless} && !e.textContent.trim()).map(e => e.id)") == []
