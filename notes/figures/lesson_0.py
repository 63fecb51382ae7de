"""Drawings of Lesson 0: how an answer is made, what is wasted, how serving is measured, and the ladder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from canvas import HATCHED_ORANGE, PALE_BLUE, PALE_GREY, SMALL, SOLID_BLUE, SOLID_ORANGE, Sheet
from figures import BLUE, GREY, ORANGE
from helpers import course_model

COLUMN = 154  # width of one lesson's column in the map
RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
RUNG_LESSONS = ("", *(f"Lesson {number}" for number in (1, 2, 3, 2, 4, 4, 8, 8, 8, 7)))


def one_token_at_a_time() -> Sheet:
    """The storyteller finishes a proverb: a row per forward, what it reads and the token that it adds."""
    prompt, answer = proverb()
    sheet = Sheet(
        390, f"The model runs {len(answer)} times to write {len(answer)} tokens, each from all those before it"
    )
    sheet.note(20, 58, "forward")
    sheet.note(92, 58, "the text so far, and the token that the model adds")
    sheet.note(604, 58, "the likeliest next tokens")
    for number, (_, chances) in enumerate(answer, 1):
        y = 78 + 34 * (number - 1)
        sheet.text(30, y + 12, f"{number}")
        words = [*prompt, *(word for word, _ in answer[:number])]
        fills = [PALE_GREY] * len(prompt) + [PALE_BLUE] * (number - 1) + [SOLID_BLUE]
        x = 92.0
        for word, fill in zip(words, fills, strict=True):
            width = 14 + 7.6 * len(word)
            sheet.box(x, y, width, 24, word, fill, SMALL)
            x += width + 3
        (best, chance), (second, lower) = chances
        sheet.text(604, y + 12, f"{best} {chance * 100:.0f} %", size=SMALL)
        share = "<1" if lower < 0.005 else f"{lower * 100:.0f}"
        sheet.note(696, y + 12, f"{second} {share} %")
    sheet.key(20, 366, [(PALE_GREY, "prompt", 90), (PALE_BLUE, "written before", 145), (SOLID_BLUE, "added now", 110)])
    sheet.note(380, 366, "\u2423 is a space: most tokens begin with one")
    return sheet


def proverb() -> tuple[list[str], list[tuple[str, list[tuple[str, float]]]]]:
    """The tokens of a prompt, and of its answer each token with the two likeliest ones and their chances."""
    model, tokenizer = course_model()

    def visible(token: int) -> str:
        return "end" if token == tokenizer.eos_token_id else tokenizer.decode([token]).replace(" ", "\u2423")

    ids = tokenizer("A friend in need").input_ids
    prompt, answer = [visible(token) for token in ids], []
    while not answer or answer[-1][0] != "end":
        with torch.inference_mode():
            logits = model(torch.tensor([ids])).logits[0, -1]
        likeliest = logits.softmax(-1).topk(2)
        pairs = zip(likeliest.indices.tolist(), likeliest.values.tolist(), strict=True)
        ids.append(int(likeliest.indices[0]))
        answer.append((visible(ids[-1]), [(visible(token), chance) for token, chance in pairs]))
    return prompt, answer


def wastes() -> Sheet:
    """The five wastes above, and under each the technique that removes it."""
    sheet = Sheet(452, "A simple server wastes a machine in five ways, and a technique removes each")
    columns = [
        ("Lesson 1", "every token is\ncomputed again", "KV cache", "memory per token", _recomputed),
        ("Lesson 2", "all weights are read\nfor one token", "batching", "waiting, padding", _weights_read),
        ("Lesson 3", "finished rows\nkeep their slot", "continuous batching", "prefills interrupt", _slots),
        ("Lesson 4", "four bytes\nfor every weight", "quantization", "small errors", _weight_bytes),
        ("Lesson 5", "a copy of the model\nfor each customer", "low-rank adapters", "training, a little work", _copies),
    ]
    for index, (lesson, waste, remedy, price, pictogram) in enumerate(columns):
        left, middle = 15 + COLUMN * index, 15 + COLUMN * (index + 0.5)
        sheet.note(middle, 62, lesson, ha="center")
        pictogram(sheet, left + 27, 82, wasteful=True)
        sheet.text(middle, 202, waste, ha="center")
        sheet.arrow((middle, 226), (middle, 250))
        sheet.text(middle, 266, remedy, ha="center", strong=True)
        pictogram(sheet, left + 27, 286, wasteful=False)
        sheet.note(middle, 400, f"price: {price}", ha="center")
    work = [(SOLID_BLUE, "useful work", 125), (PALE_BLUE, "next requests", 135), (HATCHED_ORANGE, "wasted", 100)]
    sheet.key(145, 430, [*work, (PALE_GREY, "kept in memory", 130)])
    return sheet


def _recomputed(sheet: Sheet, x: float, y: float, *, wasteful: bool) -> None:
    """Rows are forwards, columns tokens; the prompt has two."""
    size, steps = 16, 5
    earlier = [(row, column) for row in range(1, steps) for column in range(row + 1)]
    new = [(0, 0)] + [(row, row + 1) for row in range(steps)]
    for cells, fill in ((earlier, HATCHED_ORANGE if wasteful else PALE_GREY), (new, SOLID_BLUE)):
        sheet.cells([(x + 2 + column * size, y + 4 + row * size) for row, column in cells], size, size, fill)


def _weights_read(sheet: Sheet, x: float, y: float, *, wasteful: bool) -> None:
    sheet.box(x, y + 8, 56, 80, "weights", PALE_GREY, SMALL)
    sheet.arrow((x + 58, y + 48), (x + 78, y + 48))
    rows = range(1) if wasteful else range(-3, 3)
    offset = -7 if wasteful else 0
    sheet.cells([(x + 82, y + 48 + offset + 14 * row) for row in rows], 14, 14, SOLID_BLUE)
    if wasteful:
        sheet.cells([(x + 82, y + 41 + 14 * row) for row in (-3, -2, -1, 1, 2, 3)], 14, 14, HATCHED_ORANGE)


def _slots(sheet: Sheet, x: float, y: float, *, wasteful: bool) -> None:
    """Four slots, six forwards; a row ends after these many."""
    size, lengths = 16, (6, 2, 3, 1)
    used = [(row, column) for row, length in enumerate(lengths) for column in range(length)]
    free = [(row, column) for row, length in enumerate(lengths) for column in range(length, 6)]
    for cells, fill in ((used, SOLID_BLUE), (free, HATCHED_ORANGE if wasteful else PALE_BLUE)):
        sheet.cells([(x + 2 + column * size, y + 16 + row * size) for row, column in cells], size, size, fill)


def _weight_bytes(sheet: Sheet, x: float, y: float, *, wasteful: bool) -> None:
    for row in range(4):
        top = y + 8 + 21 * row
        sheet.cells([(x + 6, top)], 22, 16, SOLID_BLUE)
        if wasteful:
            sheet.cells([(x + 28 + 22 * part, top) for part in range(3)], 22, 16, HATCHED_ORANGE)


def _copies(sheet: Sheet, x: float, y: float, *, wasteful: bool) -> None:
    places = [(x + 2, y + 4), (x + 52, y + 4), (x + 27, y + 52)] if wasteful else [(x + 6, y + 24)]
    sheet.cells(places[:1], 44, 44, PALE_GREY)
    sheet.cells(places[1:], 44, 44, HATCHED_ORANGE)
    if not wasteful:
        sheet.cells([(x + 64 + 12 * part, y + 24) for part in range(3)], 5, 44, SOLID_BLUE)


def request_time_line() -> Sheet:
    """The worked example of the note, drawn to scale."""
    sent, admitted, token_times = 0, 30, [60, 80, 100, 120, 180]
    sheet = Sheet(330, "The mean gap of this request is 30 ms, and its longest gap is 60 ms")

    def at(ms: float) -> float:
        return 50 + 3.8 * ms

    top, height = 120, 40
    own = list(zip(token_times, token_times[1:], strict=False))
    for start, end, words, fill in [
        (sent, admitted, "waits in\nthe queue", HATCHED_ORANGE),
        (admitted, token_times[0], "prefill", SOLID_ORANGE),
        *((start, end, "decode", SOLID_BLUE) for start, end in own[:-1]),
        (120, 160, "stalled by the\nprefill of others", HATCHED_ORANGE),
        (160, 180, "decode", SOLID_BLUE),
    ]:
        sheet.box(at(start), top, at(end) - at(start), height, words, fill, SMALL)
    for number, ms in enumerate(token_times, 1):
        sheet.paper.plot(at(ms), top, marker="v", color=BLUE, markersize=8, clip_on=False)
        sheet.text(at(ms), top - 20, f"token {number}", size=SMALL, ha="center")
    for ms in (sent, admitted, *token_times):
        sheet.note(at(ms), top + height + 13, f"{ms}", ha="center")
    sheet.note(at(180) + 14, top + height + 13, "ms")
    sheet.text(at(0), top - 20, "sent", size=SMALL, ha="center")
    for start, end in own:
        sheet.span(at(start), at(end), 78, f"{end - start}", size=SMALL)
    sheet.text(at(60) - 12, 78, "ITL: each single gap, in ms", ha="right")
    sheet.span(at(sent), at(token_times[0]), 208, f"TTFT = {token_times[0] - sent} ms", below=True)
    mean = (token_times[-1] - token_times[0]) / (len(token_times) - 1)
    words = f"TPOT = (180 − 60) / 4 = {mean:.0f} ms, the mean of the four gaps"
    sheet.span(at(token_times[0]), at(token_times[-1]), 208, words, below=True)
    words = f"latency = {token_times[-1] - sent} ms, waiting included"
    sheet.span(at(sent), at(token_times[-1]), 258, words, below=True)
    sheet.note(20, 308, "Times of a worked example, to scale. The clock starts when the request is sent.")
    return sheet


def percentiles() -> Sheet:
    """Ten latencies, their mean, median and worst."""
    latencies = [100] * 9 + [1000]
    mean, median, worst = sum(latencies) / 10, sorted(latencies)[4], max(latencies)
    sheet = Sheet(250, "The mean is a time that nobody saw")

    def at(ms: float) -> float:
        return 60 + 0.66 * ms

    base = 180
    sheet.ruler(at, range(0, 1001, 100), base)
    sheet.note(at(530), base + 36, "latency in ms; one circle is one request", ha="center")
    for place, ms in enumerate(latencies):
        y = base - 9 - 12 * (place if ms < 1000 else 0)
        sheet.paper.plot(at(ms), y, marker="o", color=BLUE, markersize=7.5, clip_on=False)
    sheet.line((at(mean), base), (at(mean), 82), color=ORANGE, linestyle="--", linewidth=2)
    sheet.text(at(mean) + 8, 88, f"mean {mean:.0f} ms: no request is here")
    sheet.text(at(median) + 16, 62, f"median {median} ms: nine of ten requests")
    sheet.arrow((at(median) + 13, 62), (at(median) + 3, 69), color=GREY)
    sheet.text(at(worst), base - 42, f"worst {worst:,} ms", ha="center")
    return sheet


def read_results(name: str) -> dict[str, Any]:
    """A results file of the benchmarks."""
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def ladder() -> Sheet:
    """What benchmarks/ladder.py has measured: one workload, rung by rung."""
    result = read_results("ladder-cpu.json")
    rungs, requests = [*result["rungs"], result["server"] | {"exact": True}], result["requests"]
    first, exact = rungs[0]["median_s"], [rung for rung in result["rungs"] if rung["exact"]]
    sheet = Sheet(
        164 + 32 * len(rungs),
        f"{first:.0f} s become {exact[-1]['median_s']:.1f} s without changing a token, "
        f"and {result['rungs'][-1]['median_s']:.1f} s with int8",
    )
    left, room, top = 262, 290, 84
    seconds, speed, gain = (left + room + offset for offset in (58, 132, 208))  # right edges of three columns
    for x, words in ((seconds, "seconds"), (speed, "tokens/s"), (gain, "times the\nfirst")):
        sheet.note(x, top - 22, words, ha="right")
    for index, (rung, lesson) in enumerate(zip(rungs, RUNG_LESSONS, strict=True)):
        y = top + 32 * index
        sheet.note(20, y + 11, lesson)
        sheet.text(left - 10, y + 11, rung["name"], ha="right")
        fill = SOLID_BLUE if rung["exact"] else HATCHED_ORANGE
        sheet.cells([(left, y)], room * rung["median_s"] / first, 22, fill)
        sheet.text(seconds, y + 11, f"{rung['median_s']:.1f}", ha="right")
        sheet.text(speed, y + 11, f"{rung['tokens_per_s']:.0f}", ha="right")
        sheet.text(gain, y + 11, f"{rung['times_the_first']:.1f}", ha="right")
    bottom = top + 32 * len(rungs)
    rounded = [rung for rung in result["rungs"] if not rung["exact"] and not rung["engine"]]
    same = " and ".join(f"{rung['same_answers']}" for rung in rounded)
    trained = " and ".join(f"{rung['storyteller_same_answers']}" for rung in rounded)
    key = [
        (SOLID_BLUE, "every token stays the same", 225),
        (HATCHED_ORANGE, "weights rounded: some answers change", 300),
    ]
    sheet.key(20, bottom + 16, key)
    words = (
        f"Same answers with bf16 and int8: {same} of {requests} with random weights, {trained} of the storyteller's."
    )
    sheet.note(20, bottom + 40, words)
    sheet.note(
        20,
        bottom + 62,
        f"{requests} requests, {result['tokens']} tokens, {conditions(result)}; "
        f"median of {result['rounds']} rounds, rungs in turn",
    )
    return sheet


def conditions(result: dict[str, Any]) -> str:
    """What a benchmark served its requests with."""
    return f"{result['model']}, {result['machine']['cpu threads']} threads"
