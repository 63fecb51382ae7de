"""Drawings of Lesson 1: what a step computes, what it keeps, and how it chooses."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch

from canvas import (
    BLANK,
    HATCHED_ORANGE,
    PALE_BLUE,
    PALE_GREEN,
    PALE_GREY,
    SMALL,
    SOLID_BLUE,
    SOLID_ORANGE,
    Fill,
    Sheet,
)
from helpers import course_model, forward, generate_token_with_past, generate_tokens
from roofline import STATED, arithmetic_s, reading_s
from utils import size_in_bytes

PROMPT = "Once upon a time"

NEW_KEY, NEW_VALUE = Fill("#c3d8ee", "////"), Fill("#d5e8c4", "\\\\")  # apart in grey too


def _tokens(ids: list[int]) -> list[str]:
    tokenizer = course_model()[1]
    return [tokenizer.decode([token]).strip() for token in ids]


def encoder_and_decoder() -> Sheet:
    """Who may look at whom: two masks over the same words."""
    sheet = Sheet(346, "In a decoder, tokens only look back, so keys and values can be kept")
    words = _tokens(course_model()[1](PROMPT)["input_ids"])
    count, size = len(words), 42
    for left, name, sees, remark in [
        (130, "encoder: every token sees the whole text", lambda row, column: True, "good for understanding a text"),
        (
            520,
            "decoder: a token sees itself and the past",
            lambda row, column: column <= row,
            "good for continuing a text",
        ),
    ]:
        sheet.text(left + 2 * size, 62, name, ha="center")
        cells = [(row, column) for row in range(count) for column in range(count)]
        for fill, wanted in ((SOLID_BLUE, True), (BLANK, False)):
            places = [(left + column * size, 106 + row * size) for row, column in cells if sees(row, column) == wanted]
            sheet.cells(places, size, size, fill)
        for index, word in enumerate(words):
            sheet.text(left - 8, 106 + (index + 0.5) * size, word, ha="right")
            sheet.text(left + (index + 0.5) * size, 98, word, ha="center", va="baseline")
        sheet.note(left + 2 * size, 106 + count * size + 16, remark, ha="center")
    sheet.key(215, 322, [(SOLID_BLUE, "row looks at column", 180), (BLANK, "hidden from the row", 150)])
    return sheet


def kv_cache_steps() -> Sheet:
    """The triangle of attention in four forwards, without and with the cache."""
    model, tokenizer = course_model()
    prompt = tokenizer(PROMPT)["input_ids"]
    answer = _tokens(list(generate_tokens(model, prompt, 4)))
    sheet = Sheet(484, "With a cache, a step computes one row of the triangle instead of all")
    size, top = 18, {"without": 82, "with": 260}
    for step in range(4):
        left, length = 50 + 188 * step, len(prompt) + step
        sheet.text(left + 63, 58, f"forward {step + 1} → “{answer[step]}”", ha="center")
        for way, y in top.items():
            new = range(length) if way == "without" or step == 0 else range(length - 1, length)
            _triangle(sheet, left, y, length, new, size)
            noun = "token" if len(new) == 1 else "tokens"
            sheet.text(left + 63, y + 7 * size + 24, f"{len(new)} {noun} sent", ha="center", size=SMALL)
    for way, y in top.items():
        sheet.text(24, y + 63, f"{way} a cache", rotation=90, ha="center", strong=True)
    used = [(SOLID_BLUE, "computed in this forward", 205), (PALE_GREY, "needed, taken from the cache (K, V)", 265)]
    sheet.key(70, 440, [*used, (BLANK, "not needed again", 150)])
    sheet.note(20, 466, "Row: a token that looks. Column: a token it looks at. The answers are the storyteller's.")
    return sheet


def _triangle(sheet: Sheet, x: float, y: float, length: int, new: range, size: int) -> None:
    """Row: the token that looks. Column: the token it looks at."""
    rows = [(row, column) for row in range(length) for column in range(row + 1)]
    computed = [cell for cell in rows if cell[0] in new]
    earlier = [cell for cell in rows if cell[0] not in new]
    for cells, fill in ((earlier, BLANK), (computed, SOLID_BLUE)):
        sheet.cells([(x + column * size, y + row * size) for row, column in cells], size, size, fill)
    if earlier:  # keys and values of the tokens before: a strip under the triangle
        sheet.cells([(x + column * size, y + length * size + 3) for column in range(length - 1)], size, 7, PALE_GREY)


def prefill_and_decode() -> Sheet:
    """What limits the two kinds of forward."""
    sheet = Sheet(300, "Prefill waits for arithmetic, decode waits for memory")
    tokens = {"prefill\n200 tokens at once": 200, "decode\n1 token": 1}

    def at(seconds: float) -> float:
        return 170 + 1.85 * seconds * 1e3

    for index, (name, count) in enumerate(tokens.items()):
        y = 66 + 92 * index
        sheet.text(158, y + 25, name, ha="right")
        for row, (what, seconds, fill) in enumerate(
            [("reading the weights", reading_s(), SOLID_BLUE), ("arithmetic", arithmetic_s(count), SOLID_ORANGE)]
        ):
            sheet.box(at(0), y + 27 * row, at(seconds) - at(0), 22, "", fill)
            sheet.text(at(seconds) + 8, y + 27 * row + 11, f"{what} {seconds * 1e3:.1f} ms", size=SMALL)
    sheet.line((at(0), 58), (at(0), 222))
    sheet.text(20, 250, "Both read all weights once. Prefill does 200 times the arithmetic for that one reading.")
    sheet.note(20, 278, f"Computed, not timed: {STATED}.")
    return sheet


def kv_cache_block() -> Sheet:
    """The cache of the storyteller as blocks, with its bytes."""
    model, tokenizer = course_model()
    prompt = torch.tensor([tokenizer(PROMPT)["input_ids"]])
    cache = generate_token_with_past(model, {"input_ids": prompt})[1]
    layers, (_, heads, length, depth) = len(cache.layers), cache.layers[0].keys.shape
    per_token = size_in_bytes(cache) // length
    sheet = Sheet(392, f"Every token leaves {per_token:,} bytes in the KV cache")
    for layer in reversed(range(layers)):
        left, top = 60 + 13 * layer, 150 - 13 * layer
        for part, (name, fill) in enumerate((("K", PALE_BLUE), ("V", PALE_GREEN))):
            for head in range(heads):
                sheet.box(left + 190 * part + 42 * head, top, 36, 150, name if layer == 0 else "", fill)
    sheet.span(60, 222, 316, f"{heads} heads of {depth} numbers", below=True)
    sheet.text(331, 328, "the same again", ha="center")
    sheet.arrow((48, 150), (48, 300))
    sheet.text(34, 225, "tokens", rotation=90, ha="center")
    sheet.text(84, 96, f"{layers} layers", ha="right")
    sheet.arrow((50, 144), (114, 80))
    lines = [
        ("2", "keys and values"),
        (f"× {layers}", "layers"),
        (f"× {heads}", "heads"),
        (f"× {depth}", "numbers per head"),
        ("× 4", "bytes per number (fp32)"),
        (f"= {per_token:,}", "bytes for each token"),
    ]
    for row, (number, meaning) in enumerate(lines):
        strong = number.startswith("=")
        sheet.text(590, 112 + 26 * row, number, ha="right", strong=strong)
        sheet.text(600, 112 + 26 * row, meaning, strong=strong, size=SMALL)
    context = model.config.n_positions
    sheet.text(540, 290, f"full context, {context} tokens:\n{per_token * context / 1e6:.1f} MB for one request")
    sheet.note(20, 372, "Shapes and bytes are read from the storyteller's cache after a real prefill.")
    return sheet


def decode_step() -> Sheet:
    """What one decode step computes in one attention head, with real attention weights."""
    words, weights = _attention_of_newest("Once upon a time there", layer=3, head=2)
    sheet = Sheet(372, "A decode step needs one query, and the keys and values of all tokens")
    top, height, width, last = 92, 32, 84, len(words) - 1
    keys, shares, values = 344, 452, 560
    for left, name in ((keys, "keys"), (shares, "weights"), (values, "values")):
        sheet.text(left + width / 2, top - 14, name, ha="center")
    for row, (word, weight) in enumerate(zip(words, weights, strict=True)):
        y = top + row * height
        sheet.text(keys - 12, y + height / 2, word, ha="right")
        sheet.box(keys, y, width, height, f"k{row + 1}", NEW_KEY if row == last else PALE_GREY)
        sheet.box(shares, y, width, height, f"{weight:.0%}", BLANK)
        sheet.box(values, y, width, height, f"v{row + 1}", NEW_VALUE if row == last else PALE_GREY)
    newest, bottom, middle = top + last * height + height / 2, top + len(words) * height, top + len(words) * height / 2
    sheet.box(20, newest - 17, 90, 34, f"“{words[last]}”", BLANK)
    sheet.note(65, newest + 30, "the new token", ha="center")
    sheet.note(20, middle - 10, "times three\nlearned matrices")
    for y, name, fill in ((top + 16, "q", SOLID_ORANGE), (newest, "k", NEW_KEY), (bottom + 38, "v", NEW_VALUE)):
        sheet.arrow((110, newest), (186, y))
        sheet.box(188, y - 17, 48, 34, f"{name}{last + 1}", fill)
    sheet.arrow((236, newest), (keys - 60, newest))
    _path(sheet, (236, bottom + 38), (values + width / 2, bottom + 38), (values + width / 2, bottom + 2))
    compared = (keys + width + shares) / 2
    _path(sheet, (236, top + 16), (262, top + 16), (262, 62), (compared, 62), (compared, top + 4))
    sheet.note(270, 50, "compared with every key, then the softmax")
    sheet.arrow((values + width, middle), (698, middle))
    sheet.box(700, middle - 17, 80, 34, "output", SOLID_BLUE)
    sheet.note(740, middle - 38, "values, mixed\nby weight", ha="center")
    used = [(PALE_GREY, "taken from the cache", 170), (NEW_KEY, "new key, appended", 165)]
    sheet.key(150, 324, [*used, (NEW_VALUE, "new value, appended", 165)])
    sheet.note(20, 352, "One head of the storyteller's fourth layer, with its real weights.")
    return sheet


def _path(sheet: Sheet, *corners: tuple[float, float]) -> None:
    """A line with corners that ends in an arrow."""
    for start, end in pairwise(corners[:-1]):
        sheet.line(start, end)
    sheet.arrow(corners[-2], corners[-1])


def _attention_of_newest(text: str, layer: int, head: int) -> tuple[list[str], list[float]]:
    """The words of a text, and the weights with which the last of them looks at each in one head of the storyteller."""
    model, tokenizer = course_model()
    ids = tokenizer(text)["input_ids"]
    model.set_attn_implementation("eager")  # the only one that hands out its weights
    with torch.inference_mode():
        weights = model(torch.tensor([ids]), output_attentions=True).attentions[layer][0, head, -1]
    return _tokens(ids), weights.tolist()


@lru_cache(maxsize=1)
def _next_word_logits() -> tuple[list[str], np.ndarray]:
    """All tokens that may follow, likeliest first, and their logits, rounded so that every machine draws the same."""
    model, tokenizer = course_model()
    ids = torch.tensor([tokenizer("The fox")["input_ids"]])
    logits = forward(model, {"input_ids": ids}, use_cache=False).logits[0, -1].double()
    best = logits.sort(descending=True)
    return _tokens(best.indices.tolist()), best.values.numpy().round(2)


def _softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.005 else "<1%"


def sampling() -> Sheet:
    """Five ways to turn the same logits into the chances of the next token."""
    words, logits = _next_word_logits()
    shown, k, p = 12, 4, 0.7
    chances = _softmax(logits)
    nucleus = int(np.searchsorted(chances.cumsum(), p)) + 1  # the token that reaches p is kept too
    ways = [
        ("temperature 1", chances, len(words)),
        ("temperature 0.5", _softmax(logits / 0.5), len(words)),
        ("temperature 2", _softmax(logits / 2), len(words)),
        (f"top-k, k = {k}", _softmax(logits[:k]), k),
        (f"top-p, p = {p}", _softmax(logits[:nucleus]), nucleus),
    ]
    unchanged = chances.round(3)
    sheet = Sheet(400, "Temperature 2 gives unlikely words most of the chance; top-k and top-p leave them out")
    for row, word in enumerate(words[:shown]):
        sheet.text(92, 97 + 20 * row, word, ha="right")
    for column, (name, exact_shares, kept) in enumerate(ways):
        shares = exact_shares.round(3)  # finer steps would differ from machine to machine
        left = 104 + 138 * column
        sheet.text(left, 66, name, strong=True, size=SMALL + 1)
        for row in range(shown):
            y = 89 + 20 * row
            if row < kept:
                sheet.box(left, y, 150 * shares[row], 16, "", SOLID_BLUE)
                sheet.text(left + 150 * shares[row] + 5, y + 8, _percent(exact_shares[row]), size=SMALL)
            else:
                sheet.box(left, y, 150 * unchanged[row], 16, "", HATCHED_ORANGE)
                sheet.text(left + 150 * unchanged[row] + 5, y + 8, "out", size=SMALL)
        rest = 1 - exact_shares[:shown].sum()
        sheet.note(left, 340, f"all others: {rest:.0%}" if kept > shown else "all others: out")
    sheet.note(
        20,
        376,
        f"The storyteller's real logits after “The fox”, for {len(words):,} tokens. Jump and jumped are two tokens.",
    )
    return sheet


def pages() -> Sheet:
    """Reserving the longest answer against handing out pages."""
    longest, used, page = 1024, 200, 16
    given = -(-used // page) * page
    sheet = Sheet(262, f"Pages waste {given - used} places where a reservation wastes {longest - used}")

    def at(places: int) -> float:
        return 130 + 0.61 * places

    for y, name, reserved in ((70, "reserved\nat once", longest), (140, f"in pages\nof {page}", given)):
        sheet.text(118, y + 20, name, ha="right")
        sheet.box(at(0), y, at(used) - at(0), 40, "used" if y == 70 else "", SOLID_BLUE)
        words = f"{reserved - used} places wasted" if y == 70 else ""
        sheet.box(at(used), y, at(reserved) - at(used), 40, words, HATCHED_ORANGE)
    for edge in range(page, given, page):
        sheet.line((at(edge), 140), (at(edge), 180), color="white", linewidth=0.8)
    sheet.text(
        at(given) + 12,
        160,
        f"{given // page} pages waste {given - used} places, and more pages come when they are needed",
    )
    sheet.span(at(0), at(longest), 205, f"{longest:,} places in the KV cache", below=True)
    sheet.note(20, 244, "Counted. Of the 1,024 places that were reserved at once, 80 % are wasted.")
    return sheet
