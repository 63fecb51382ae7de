"""Drawings of Lesson 3: slots over forwards, merge and filter, stalls and pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

import numpy as np

from canvas import (
    BLANK,
    HATCHED_ORANGE,
    MID_GREY,
    PALE_BLUE,
    PALE_GREEN,
    PALE_ORANGE,
    PALE_PURPLE,
    SMALL,
    SOLID_BLUE,
    Fill,
    Sheet,
)
from figures import BLUE, GREY, ORANGE
from helpers import (
    Batch,
    Request,
    course_model,
    filter_batch,
    generate_next_token,
    init_batch,
    merge_batches,
    run_continuous,
    run_static,
)
from measure import Trace
from roofline import STATED, forward_s

SLOTS = 8
COURSE_BUDGETS = [100 if index % 8 == 0 else 10 for index in range(32)]
SHADES = (PALE_BLUE, PALE_PURPLE, PALE_GREEN, MID_GREY)  # a request's; orange is for what nobody asked for


def trace_of(serve: Callable[..., object], budgets: Sequence[int], slots: int) -> Trace:
    """A real run of these budgets on the storyteller; prompts of seven tokens."""
    model, tokenizer = course_model()
    prompt = tokenizer("Once upon a time there was a")["input_ids"]
    trace = Trace()
    serve([Request(prompt, budget, ignore_eos=True) for budget in budgets], slots, model=model, trace=trace)
    return trace


def small_time_lines() -> Sheet:
    """Four requests, two slots, every token a letter."""
    budgets = {"A": 6, "B": 2, "C": 3, "D": 2}
    sheet = Sheet(362, "Continuous batching gives a free slot away at once")
    size = 44
    for top, name, serve in ((90, "static", run_static), (226, "continuous", run_continuous)):
        trace = trace_of(serve, list(budgets.values()), 2)
        slots = zip(*trace.slot_rows(), strict=True)
        letters = [["" if held is None else "ABCD"[held] for held in slot] for slot in slots]
        fills = [[SHADES["ABCD".index(letter)] if letter else HATCHED_ORANGE for letter in row] for row in letters]
        sheet.text(20, top + size, name, strong=True)
        sheet.table(170, top, letters, size, size, fills)
        for slot in range(2):
            sheet.note(162, top + (slot + 0.5) * size, f"slot {slot}", ha="right")
        for forward, row in enumerate(trace.rows):
            sheet.note(170 + (forward + 0.5) * size, top - 10, f"{forward + 1}", ha="center")
            if row.phase == "prefill":
                sheet.note(170 + (forward + 0.5) * size, top - 28, "prefill", ha="center")
        x = 170 + size * trace.forwards + 14
        words = f"{trace.forwards} forwards,\n{trace.tokens} of {2 * trace.forwards} cells useful"
        sheet.text(x, top + size, words)
    asked = (PALE_BLUE, "A to D: a token of this request", 265)
    sheet.key(170, 340, [asked, (HATCHED_ORANGE, "a cell that makes no token", 170)])
    return sheet


def static_and_continuous() -> Sheet:
    """The course's workload in both ways, on one scale."""
    sheet = Sheet(400, "Static batching takes 400 forwards for 680 tokens, continuous batching 132")

    def at(forward: int) -> float:
        return 116 + 1.63 * forward

    for top, name, serve in ((62, "static", run_static), (216, "continuous", run_continuous)):
        trace = trace_of(serve, COURSE_BUDGETS, SLOTS)
        sheet.text(20, top + 56, name, strong=True)
        places: dict[tuple[Fill, int], list[tuple[float, float]]] = {}
        for slot, held in enumerate(zip(*trace.slot_rows(), strict=True)):
            for request, start, length in _stretches(held):
                fill = HATCHED_ORANGE if request is None else _shade(request)
                places.setdefault((fill, length), []).append((at(start), top + 14 * slot))
        for (fill, length), corners in places.items():
            sheet.cells(corners, at(length) - at(0), 14, fill)
        share = f"{trace.forwards} forwards, {trace.slot_utilization:.0%} of the cells useful"
        if trace.forwards < 300:
            sheet.text(at(trace.forwards) + 14, top + 56, share)
        else:
            sheet.text(at(0), top + 126, share)
    sheet.ruler(at, range(0, 401, 50), 336)
    sheet.note(at(0) - 14, 352, "forwards", ha="right")
    entries = [(SOLID_BLUE, "request of 100 tokens", 175), (PALE_BLUE, "request of 10 tokens", 170)]
    sheet.key(116, 380, [*entries, (HATCHED_ORANGE, "idle slot", 100)])
    sheet.note(at(400), 380, "32 requests, 8 slots, real runs", ha="right")
    return sheet


def _stretches(held: Sequence[int | None]) -> list[tuple[int | None, int, int]]:
    """(request, first forward, forwards) of every stretch in which a slot holds the same request."""
    stretches, start = [], 0
    for request, group in groupby(held):
        length = len(list(group))
        stretches.append((request, start, length))
        start += length
    return stretches


def _shade(request: int) -> Fill:
    return SOLID_BLUE if COURSE_BUDGETS[request] == 100 else PALE_BLUE


def _mask_table(sheet: Sheet, x: float, y: float, batch: Batch, numbers: Sequence[int], size: int = 24) -> None:
    """Rows of an attention mask in the colours of their requests; a pad is hatched."""
    rows = batch.attention_mask.tolist()
    fills = [
        [SHADES[number - 1] if real else HATCHED_ORANGE for real in row]
        for number, row in zip(numbers, rows, strict=True)
    ]
    sheet.table(x, y, [[str(real) for real in row] for row in rows], size, size, fills)
    for index, number in enumerate(numbers):
        sheet.text(x - 8, y + (index + 0.5) * size, f"{number}", ha="right")


def _running_batch() -> tuple[Batch, Batch]:
    """Two rows that have two tokens each, and a newcomer after its prefill."""
    model = course_model()[0]
    running = generate_next_token(init_batch([Request([5, 6, 7, 8], 3, True), Request([5, 6], 9, True)]), model)
    return generate_next_token(running, model), generate_next_token(init_batch([Request([5, 6], 9, True)]), model)


def merge() -> Sheet:
    """Attention masks before and after a merge."""
    running, newcomer = _running_batch()
    merged = merge_batches(running, newcomer)
    sheet = Sheet(292, "A merge pads the narrower cache on the left and stacks the rows")
    sheet.text(60, 72, "running", strong=True)
    _mask_table(sheet, 60, 88, running, [1, 2])
    sheet.text(60, 166, "newcomer", strong=True)
    _mask_table(sheet, 60, 182, newcomer, [3])
    sheet.text(240, 136, "+", size=16, ha="center")
    sheet.arrow((262, 136), (322, 136))
    sheet.text(370, 72, "merged", strong=True)
    _mask_table(sheet, 370, 88, merged, [1, 2, 3])
    sheet.arrow((406, 184), (406, 164))
    sheet.text(370, 195, "new padding: the newcomer becomes as wide as the others")
    sheet.text(20, 232, "Keys and values are padded and stacked in the same way, in every layer. No token changes.")
    sheet.key(60, 262, [(PALE_BLUE, "1: may be looked at", 165), (HATCHED_ORANGE, "0: padding", 115)])
    sheet.note(400, 262, "Masks of real batches; the last column is the newest token.")
    return sheet


def filter_rows() -> Sheet:
    """Attention masks before, between and after the two parts of a filter."""
    running, newcomer = _running_batch()
    before = generate_next_token(merge_batches(running, newcomer), course_model()[0])
    after, _ = filter_batch(before)
    cut = before.attention_mask.shape[1] - after.attention_mask.shape[1]
    sheet = Sheet(282, "A filter drops a finished row and the columns that only it needed")
    size, top = 24, 90
    sheet.text(40, 72, "row 1 has its last token", strong=True)
    _mask_table(sheet, 40, top, before, [1, 2, 3], size)
    sheet.arrow((222, top + 36), (262, top + 36))
    sheet.text(300, 72, "the row goes", strong=True)
    kept = Batch(after.requests, before.input_ids[1:], before.attention_mask[1:], before.position_ids[1:])
    _mask_table(sheet, 300, top + size, kept, [2, 3], size)
    sheet.cells([(300, top)], 7 * size, size, BLANK)
    sheet.text(300 + 3.5 * size, top + size / 2, "leaves", size=SMALL, ha="center")
    sheet.frame(300, top + size, cut * size, 2 * size)
    sheet.note(300, top + 3 * size + 14, f"{cut} columns are padding in all rows")
    sheet.arrow((484, top + 48), (540, top + 48))
    sheet.text(580, 72, "the columns go", strong=True)
    _mask_table(sheet, 580, top + size, after, [2, 3], size)
    sheet.text(20, 214, "Keys and values lose the same rows and columns. What stays is untouched: no token changes.")
    sheet.key(40, 250, [(SHADES[1], "1: may be looked at", 165), (HATCHED_ORANGE, "0: padding", 115)])
    sheet.note(400, 250, "Masks of real batches; the last column is the newest token.")
    return sheet


def static_forwards(budgets: Sequence[int], slots: int) -> int:
    """Forwards of `run_static`: every batch is as long as its longest request."""
    return sum(max(budgets[start : start + slots]) for start in range(0, len(budgets), slots))


def continuous_forwards(budgets: Sequence[int], slots: int) -> int:
    """Forwards of `run_continuous`: a prefill whenever somebody is admitted, then a decode for all."""
    waiting, running, forwards = list(budgets), [], 0
    while waiting or running:
        free = slots - len(running)
        newcomers, waiting = waiting[:free], waiting[free:]
        running += [left - 1 for left in newcomers if left > 1]
        forwards += bool(newcomers) + bool(running)
        running = [left - 1 for left in running if left > 1]
    return forwards


def gain() -> Sheet:
    """Forwards saved over the share of long requests, counted."""
    counts = range(33)
    sheet = Sheet(350, "The gain is largest when a few long requests are among short ones")
    axes = sheet.plot(76, 66, 470, 212)
    lowest = 1.0
    for long, color, style in ((100, BLUE, "-"), (30, ORANGE, "--")):
        ratios = []
        for count in counts:
            budgets = [long if i * count % 32 < count else 10 for i in range(32)]
            ratios.append(static_forwards(budgets, SLOTS) / continuous_forwards(budgets, SLOTS))
        look = {"color": color, "linestyle": style, "linewidth": 2}
        axes.plot(np.array(counts) / 32 * 100, ratios, marker="o", markersize=4, **look)
        peak = int(np.argmax(ratios))
        lowest = min(lowest, *ratios)
        y = 86 if long == 100 else 166
        sheet.line((560, y), (600, y), **look)
        words = f"long ones of {long} tokens: up to\n{ratios[peak]:.1f} times, when {peak} of 32 are long"
        sheet.text(560, y + 26, words)
    axes.axhline(1, color=GREY, linestyle=":", linewidth=1.5)
    axes.set_xticks(range(0, 101, 20))
    axes.set(xlim=(-2, 102), ylim=(0, None))
    axes.set(xlabel="share of long requests (%)", ylabel="forwards, static / continuous")
    sheet.text(
        560,
        250,
        f"If all are alike, nothing is gained.\nA few short ones among long\nones make a loss, down to {lowest:.2f}.",
    )
    sheet.note(20, 332, "Counted, not timed: 32 requests, 8 slots, the others want 10 tokens, long ones spread evenly.")
    return sheet


def loop() -> Sheet:
    """The loop of continuous batching, with what each operation does to the batch."""
    sheet = Sheet(300, "One loop serves the queue; every pass gives each running row a token")
    steps = [
        ("admit", "waiting requests\ninto free slots"),
        ("prefill", "read their prompts,\nfirst token"),
        ("merge", "join the rows\nthat are running"),
        ("decode", "one token\nfor every row"),
        ("filter", "finished rows\ngive up their slots"),
    ]
    for index, (name, meaning) in enumerate(steps):
        left = 30 + 152 * index
        sheet.box(left, 96, 120, 44, name, SOLID_BLUE)
        sheet.text(left + 60, 166, meaning, size=SMALL, ha="center")
        if index:
            sheet.arrow((left - 30, 118), (left - 2, 118))
    sheet.line((698, 96), (698, 68))
    sheet.line((698, 68), (90, 68))
    sheet.arrow((90, 68), (90, 94))
    sheet.text(394, 56, "until nobody waits and nobody runs", ha="center", size=SMALL)
    sheet.arrow((698, 190), (698, 216))
    sheet.text(698, 230, "answers", ha="center")
    sheet.arrow((90, 216), (90, 190))
    sheet.text(90, 230, "queue", ha="center")
    sheet.text(394, 226, "If nobody waits or no slot is free, the loop goes straight to decode.", ha="center")
    sheet.note(20, 276, "Static batching is the same loop, but rows leave all together, when the last is done.")
    return sheet


def prefill_stall() -> Sheet:
    """A long prompt arrives: prefilled in one go, or in chunks beside the decodes."""
    rows, prompt, budget = 3, 128, 32
    sheet = Sheet(372, "A long prefill stops everybody; cut in chunks, it slows everybody a little")
    chunks = [min(budget - rows, prompt - done) for done in range(0, prompt, budget - rows)]
    before, after = [("", rows, SOLID_BLUE)] * 2, ("", rows + 1, SOLID_BLUE)
    at_once = (f"prefill of all {prompt} tokens", prompt, HATCHED_ORANGE)
    beside = [(f"{part}+{rows}", part + rows, PALE_ORANGE) for part in chunks]
    for top, name, forwards, decodes in ((84, "at once", [at_once], 4), (208, "in chunks", beside, 3)):
        sheet.text(20, top + 20, name, strong=True)
        _forwards_over_time(sheet, top, [*before, *forwards, *[after] * decodes])
        first = sum(forward_s(tokens) for _, tokens, _ in forwards) * 1e3
        sheet.text(660, top + 20, f"first token of\nthe new prompt\nafter {first:.0f} ms", size=SMALL)
    entries = [(SOLID_BLUE, "decode of the running rows", 205), (HATCHED_ORANGE, "prefill alone", 125)]
    sheet.key(110, 310, [*entries, (PALE_ORANGE, "prompt tokens + decodes", 190)])
    sheet.text(632, 310, "▾ a running row's token", size=SMALL)
    example = f"{rows} rows run, a prompt of {prompt} comes, chunked forwards hold up to {budget} tokens;"
    sheet.note(20, 336, f"Computed, not timed: {example}")
    sheet.note(20, 354, f"{STATED}.")
    return sheet


def _forwards_over_time(sheet: Sheet, top: float, forwards: Sequence[tuple[str, int, Fill]]) -> None:
    """Forwards (words, tokens, fill) as long as they take, and when a running row gets its tokens."""

    def at(seconds: float) -> float:
        return 110 + 2050 * seconds

    now, moments = 0.0, []
    for words, tokens, fill in forwards:
        end = now + forward_s(tokens)
        sheet.box(at(now), top, at(end) - at(now), 40, words, fill, SMALL)
        now = end
        if fill is not HATCHED_ORANGE:  # the prefill alone gives the running rows nothing
            moments.append(now)
            sheet.paper.plot(at(now), top - 9, marker="v", color=BLUE, markersize=6, clip_on=False)
    place = int(np.argmax(np.diff(moments)))
    start, end = moments[place], moments[place + 1]
    sheet.span(at(start), at(end), top + 54, f"longest gap {(end - start) * 1e3:.0f} ms", below=True)


def paged_cache() -> Sheet:
    """Tables that lead from the blocks of a request to blocks of memory."""
    block, lengths = 4, {"A": 10, "B": 5, "C": 7}
    sheet = Sheet(372, "In a paged cache any free block will do, so nothing is padded or copied")
    shades = dict(zip(lengths, SHADES, strict=False))
    table_left = {name: 60 + 240 * index for index, name in enumerate(lengths)}
    for name, left in table_left.items():
        sheet.text(left, 66, f"request {name}: {lengths[name]} tokens", strong=True)
    left_over = dict(lengths)
    for place, owner in enumerate(["A", "B", "A", "C", "", "B", "C", "A", "", ""]):
        left = 40 + 73 * place
        used = min(block, left_over.get(owner, 0))
        if owner:
            entry = table_left[owner] + 15 * (lengths[owner] - left_over[owner])
            sheet.box(entry, 84, 52, 30, f"→ {place}", shades[owner])
            sheet.arrow((entry + 26, 116), (left + 32, 206), color=GREY, linewidth=0.9)
            left_over[owner] -= used
        corners = [(left + 16 * slot, 210) for slot in range(block)]
        sheet.cells(corners[:used], 16, 40, shades.get(owner, BLANK))
        sheet.cells(corners[used:], 16, 40, HATCHED_ORANGE if owner else BLANK)
        sheet.note(left + 32, 262, f"block {place}", ha="center")
        sheet.text(left + 32, 280, owner or "free", ha="center")
    empty = sum(-length % block for length in lengths.values())
    words = f"Only a request's last block has empty places: here {empty}, and at most {block - 1} per request."
    sheet.text(20, 310, words)
    sheet.key(40, 346, [(HATCHED_ORANGE, "place not used yet", 160), (BLANK, "free", 80)])
    sheet.note(330, 346, f"A small example: blocks of {block} tokens; real ones hold more, often 16.")
    return sheet
