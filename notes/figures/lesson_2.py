"""Drawings of Lesson 2: the padded rectangle, and what a batch costs and brings."""

from __future__ import annotations

import numpy as np
import torch

from canvas import (
    BLANK,
    HATCHED_ORANGE,
    PALE_BLUE,
    PALE_GREEN,
    POINTS_PER_PIXEL,
    SMALL,
    SOLID_BLUE,
    Fill,
    Sheet,
)
from figures import BLUE, GREY, ORANGE
from helpers import course_model, generate_token, init_batch, positions_from_mask
from roofline import BANDWIDTH, GPT2_PARAMETERS, GPT2_WEIGHT_BYTES, OPERATIONS, STATED, crossover, forward_s

PROMPTS = ["What comes up must", "Once upon a time there was a", "The rain in Spain falls"]


def _word(token: int) -> str:
    return course_model()[1].decode([token]).strip()


def padded_batch() -> Sheet:
    """Three real prompts as tokens, mask and positions."""
    batch = init_batch([(prompt, 1) for prompt in PROMPTS], course_model()[1])
    mask, width = batch.attention_mask.tolist(), batch.attention_mask.shape[1]
    words = [
        [_word(token) if real else "pad" for token, real in zip(ids, row, strict=True)]
        for ids, row in zip(batch.input_ids.tolist(), mask, strict=True)
    ]
    fills = [[PALE_BLUE if real else HATCHED_ORANGE for real in row] for row in mask]
    plain = [[BLANK if real else HATCHED_ORANGE for real in row] for row in mask]
    positions = [[str(value) for value in row] for row in batch.position_ids.tolist()]
    zeros_and_ones = [[str(value) for value in row] for row in mask]
    pads = sum(row.count(0) for row in mask)
    sheet = Sheet(288, "Three prompts become one rectangle, padded on the left")
    top, cell, narrow = 96, 34, 22
    for left, name, table, colors, size in [
        (20, "input_ids (shown as words)", words, fills, 58),
        (442, "attention_mask", zeros_and_ones, plain, narrow),
        (612, "position_ids", positions, plain, narrow),
    ]:
        sheet.text(left, top - 18, name, strong=True)
        sheet.table(left, top, table, size, cell, colors)
    sheet.frame(20 + (width - 1) * 58, top, 58, len(words) * cell)
    sheet.arrow((20 + 6.5 * 58, top + 3 * cell + 26), (20 + 6.5 * 58, top + 3 * cell + 4))
    sheet.text(20 + 7 * 58, top + 3 * cell + 38, "the next token of every row is read here", ha="right")
    share = pads / (len(words) * width)
    sheet.note(442, top + 3 * cell + 18, f"{pads} of {len(words) * width} cells are padding: {share:.0%}.")
    sheet.note(442, top + 3 * cell + 36, "Under a pad the mask is 0, the position any number.")
    sheet.note(20, 272, "A real batch of the storyteller. Each row is numbered as it would be alone.")
    return sheet


def padding_side() -> Sheet:
    """The same two prompts padded left and right, and what the model answers."""
    model, tokenizer = course_model()
    prompts = [tokenizer(prompt)["input_ids"] for prompt in PROMPTS[:2]]
    width = max(map(len, prompts))
    alone = [_word(int(generate_token(model, {"input_ids": torch.tensor([ids])}))) for ids in prompts]
    sheet = Sheet(330, "Pad on the left, so that the last column holds words and no pads")
    for top, side in ((82, "left"), (206, "right")):
        answers = _answers(prompts, width, side)
        rows = []
        for ids in prompts:
            pads, words = ["pad"] * (width - len(ids)), [_word(token) for token in ids]
            rows.append(pads + words if side == "left" else words + pads)
        fills = [[HATCHED_ORANGE if word == "pad" else PALE_BLUE for word in row] for row in rows]
        sheet.text(20, top - 16, f"padded on the {side}", strong=True)
        sheet.table(20, top, rows, 62, 34, fills)
        sheet.frame(20 + (width - 1) * 62, top, 62, 68)
        sheet.text(500, top - 16, "next token")
        sheet.text(620, top - 16, "alone it is")
        for row, (answer, own) in enumerate(zip(answers, alone, strict=True)):
            y = top + 17 + 34 * row
            sheet.arrow((458, y), (492, y))
            right = answer == own
            sheet.text(500, y, f"“{answer}”", strong=not right)
            sheet.text(620, y, f"“{own}”")
            sheet.text(710, y, "equal" if right else "wrong", strong=not right)
    sheet.note(20, 308, "Real answers of the storyteller; mask and positions are right in both. No error is raised.")
    return sheet


def _answers(prompts: list[list[int]], width: int, side: str) -> list[str]:
    """What the model says at the last column of the padded batch."""
    model = course_model()[0]
    missing = [width - len(ids) for ids in prompts]
    left = [count if side == "left" else 0 for count in missing]
    ids = torch.tensor([[0] * n + p + [0] * (m - n) for p, m, n in zip(prompts, missing, left, strict=True)])
    mask = torch.tensor(
        [[0] * n + [1] * len(p) + [0] * (m - n) for p, m, n in zip(prompts, missing, left, strict=True)]
    )
    with torch.inference_mode():
        logits = model(input_ids=ids, attention_mask=mask, position_ids=positions_from_mask(mask)).logits
    return [_word(token) for token in logits[:, -1].argmax(-1).tolist()]


def knee() -> Sheet:
    """Throughput and time of a step over the batch size, by the roofline."""
    sizes = 2 ** np.arange(8)
    rows = 2 ** np.linspace(0, 7, 141)  # for the lines between the marked sizes
    seconds = np.array([forward_s(count) for count in rows])
    sheet = Sheet(372, f"Up to about {crossover():.0f} rows a larger batch is free; then everybody waits longer")
    for left, values, name, color, marker, style in [
        (76, rows / seconds, "throughput (tokens per second)", BLUE, "o", "-"),
        (470, seconds * 1e3, "time of one decode step (ms)", ORANGE, "s", "--"),
    ]:
        axes = sheet.plot(left, 86, 300, 196)
        axes.axvspan(0.8, crossover(), facecolor=PALE_GREEN.color, linewidth=0)
        axes.axvline(crossover(), color=GREY, linestyle=":", linewidth=1.5)
        axes.plot(rows, values, color=color, marker=marker, markevery=20, linestyle=style, linewidth=2)
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        axes.set(xlim=(0.8, 160), ylim=(0, 1.15 * values.max()), xlabel="rows in the batch")
        sheet.text(left, 68, name)
    sheet.text(90, 110, "waits for\nmemory", size=SMALL)
    sheet.text(244, 258, "waits for\narithmetic", size=SMALL)
    sheet.text(486, 110, "waits for\nmemory", size=SMALL)
    sheet.text(690, 258, "waits for\narithmetic", size=SMALL)
    sheet.note(20, 338, "Computed, not timed: the longer of reading all weights and the arithmetic of all rows.")
    sheet.note(20, 356, f"For {STATED}.")
    return sheet


def roofline() -> Sheet:
    """Arithmetic intensity of decode batches and a prefill under the machine's roof."""
    ridge = OPERATIONS / BANDWIDTH
    intensity = np.array([0.1, ridge, 200])
    roof = np.minimum(intensity * BANDWIDTH, OPERATIONS) / 1e9
    sheet = Sheet(382, "With more rows per reading, arithmetic becomes the limit instead of memory")
    axes = sheet.plot(84, 64, 660, 236)
    axes.plot(intensity, roof, color=GREY, linewidth=2.5)
    for tokens in (1, 2, 4, 8, 16, 32, 200):
        is_prefill = tokens == 200
        place = 2 * GPT2_PARAMETERS * tokens / GPT2_WEIGHT_BYTES
        height = min(place * BANDWIDTH, OPERATIONS) / 1e9
        axes.plot(place, height, marker="s" if is_prefill else "o", color=ORANGE if is_prefill else BLUE, markersize=9)
        words = "prefill of 200 tokens" if is_prefill else f"{tokens} row{'s' * (tokens > 1)}"
        look = {"textcoords": "offset points", "fontsize": SMALL * POINTS_PER_PIXEL}
        if place < ridge:
            axes.annotate(words, (place, height), (-7, 5), ha="right", **look)
        else:
            axes.annotate(words, (place, height), (-4, -17), ha="center" if is_prefill else "left", **look)
    axes.axvline(ridge, color=GREY, linestyle=":", linewidth=1.5)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks([0.1, 0.5, 1, 2, 4, 8, 16, 100], ["0.1", "0.5", "1", "2", "4", "8", "16", "100"])
    axes.set_yticks([10, 30, 100, 200], ["10", "30", "100", "200"])
    axes.minorticks_off()
    axes.set(xlim=(0.1, 200), ylim=(3, 400))
    axes.set(xlabel="arithmetic intensity (operations per byte read)", ylabel="GFLOP/s reached")
    sheet.text(290, 204, "slope: 30 GB/s", color="#4a4a4a")
    sheet.text(600, 84, "roof: 200 GFLOP/s", ha="center", color="#4a4a4a")
    sheet.text(484, 280, f"the slope meets the roof at {ridge:.1f}", size=SMALL)
    sheet.note(20, 360, f"Computed, not timed: {STATED}.")
    return sheet


def three_requests() -> Sheet:
    """One by one, or gathered into a batch: who waits how long."""
    arrivals, alone, together = (0, 100, 200), 300, 330
    sheet = Sheet(438, "Gathered into one batch, two of three are served sooner and the first one later")

    def at(ms: float) -> float:
        return 96 + 0.66 * ms

    one_by_one = [max(arrival, index * alone) for index, arrival in enumerate(arrivals)]
    gathered = [arrivals[-1]] * 3
    for top, name, starts, length in ((70, "one by one", one_by_one, alone), (218, "gathered", gathered, together)):
        done = [start + length for start in starts]
        latencies = [end - arrival for end, arrival in zip(done, arrivals, strict=True)]
        sheet.text(20, top + 52, name.replace("one by one", "one\nby one"), strong=True)
        for row, (arrival, start) in enumerate(zip(arrivals, starts, strict=True)):
            y = top + 36 * row
            if start > arrival:
                sheet.box(at(arrival), y, at(start) - at(arrival), 28, "waits", HATCHED_ORANGE, SMALL)
            sheet.box(at(start), y, at(start + length) - at(start), 28, f"{'ABC'[row]} runs", SOLID_BLUE, SMALL)
            sheet.text(at(arrival) - 5, y + 14, "ABC"[row], ha="right")
            sheet.text(at(start + length) + 8, y + 14, f"latency {latencies[row]} ms", size=SMALL)
        mean = sum(latencies) / len(latencies)
        sheet.note(at(0), top + 118, f"mean latency {mean:.0f} ms, all done at {max(done)} ms")
    sheet.ruler(at, range(0, 901, 100), 360)
    sheet.note(at(900) + 20, 376, "ms")
    sheet.note(
        20, 403, "Assumed: arrivals at 0, 100, 200 ms; one request takes 300 ms alone, three take 330 ms together."
    )
    sheet.note(
        20,
        421,
        "With 60 and 66 ms nobody queues: served at once 60 ms each, gathered 266, 166 and 66 ms.",
    )
    return sheet


def packing() -> Sheet:
    """A small weight matrix, numbered in the order in which a kernel reads it, and its two ways to lie in memory."""
    outputs, inputs, block = 8, 4, 4
    packed = torch.arange(1, outputs * inputs + 1)  # by block, input and output: the first weight read is number 1
    matrix = packed.view(outputs // block, inputs, block).transpose(1, 2).reshape(outputs, inputs)

    def fill(number: int) -> Fill:
        return SOLID_BLUE if number <= block else PALE_BLUE if number <= block * inputs else PALE_GREEN

    def table(left: float, top: float, rows: list[list[int]], width: float) -> None:
        words = [[str(number) for number in row] for row in rows]
        sheet.table(left, top, words, width, 26, [[fill(number) for number in row] for row in rows])

    sheet = Sheet(452, "Packed, the weights lie in the order in which the kernel reads them")
    left, top = 92, 86
    sheet.text(left, top - 18, "the weights: one row per output, one column per input")
    table(left, top, matrix.tolist(), 46)
    for row in range(outputs):
        sheet.note(left - 8, top + 26 * row + 13, f"output {row}", ha="right")
    for line, words in enumerate(
        [
            "The number says when the kernel reads a weight.",
            f"It makes {block} outputs at once: it reads their {block} weights for",
            "the first input (dark), then for the second, and so on.",
            f"Then it makes the next {block} outputs (green).",
        ]
    ):
        sheet.text(320, top + 44 + 26 * line, words)
    for y, name, memory in (
        (346, "unpacked, the matrix row by row: the kernel has to jump", matrix.flatten()),
        (410, "packed: the kernel reads straight on", packed),
    ):
        sheet.text(20, y - 14, name, strong=True)
        table(20, y, [memory.tolist()], 23.7)
    return sheet
