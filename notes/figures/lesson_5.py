"""Drawings of Lesson 5: two thin matrices, what they weigh, and how they are served."""

from __future__ import annotations

from canvas import (
    BLANK,
    MID_GREY,
    PALE_BLUE,
    PALE_GREEN,
    PALE_GREY,
    PALE_ORANGE,
    PALE_PURPLE,
    SMALL,
    SOLID_BLUE,
    Fill,
    Sheet,
)
from roofline import GPT2_PARAMETERS

IN, OUT, RANK, LAYERS = 768, 2304, 8, 12  # GPT-2 small's attention projections
ADAPTER = LAYERS * RANK * (IN + OUT)


def factors() -> Sheet:
    """W, A and B to scale."""
    sheet = Sheet(398, "LoRA trains two thin matrices beside a frozen one")
    scale, top = 0.125, 70
    tall, wide, thin = OUT * scale, IN * scale, RANK * scale * 2
    sheet.box(150, top, wide, tall, "W\nfrozen", MID_GREY)
    sheet.text(150 + wide / 2, top - 12, f"in {IN}", ha="center", size=SMALL)
    sheet.text(140, top + tall / 2, f"out {OUT:,}", ha="right", size=SMALL)
    sheet.text(290, top + tall / 2, "+", size=16, ha="center")
    sheet.text(322, top + tall / 2, "α / r ·", ha="center")
    sheet.box(362, top, thin, tall, "", SOLID_BLUE)
    sheet.text(363, top - 12, "B (out, r)", ha="center", size=SMALL)
    sheet.text(384, top + tall / 2, "·", size=16, ha="center")
    sheet.box(400, top + tall / 2 - thin / 2, wide, thin, "", SOLID_BLUE)
    sheet.text(400 + wide / 2, top + tall / 2 - 14, "A (r, in)", ha="center", size=SMALL)
    share = RANK * (IN + OUT) / (IN * OUT)
    lines = [
        f"W: {OUT:,} · {IN} = {IN * OUT:,}",
        f"A and B: {RANK} · ({IN} + {OUT:,}) = {RANK * (IN + OUT):,}",
        f"that is {100 * share:.1f} % of W",
        "B · A has the shape of W",
        "",
        "B starts at zero: a new adapter",
        "changes nothing. A starts random,",
        "so that B can learn.",
    ]
    for row, words in enumerate(lines):
        sheet.text(530, 108 + 24 * row, words, strong=row == 2)
    sheet.note(20, 382, f"GPT-2 small's attention projection at r = {RANK}; to scale, but thin sides doubled.")
    return sheet


def training_memory() -> Sheet:
    """Bytes that training needs, without activations."""
    sheet = Sheet(258, "Training an adapter needs the frozen weights and little else")
    plans = [
        (
            "all weights",
            [
                ("weights", 4 * GPT2_PARAMETERS, MID_GREY),
                ("gradients", 4 * GPT2_PARAMETERS, PALE_BLUE),
                ("two moments of Adam", 8 * GPT2_PARAMETERS, PALE_PURPLE),
            ],
        ),
        ("adapter, r = 8", [("weights", 4 * GPT2_PARAMETERS, MID_GREY), ("", 16 * ADAPTER, SOLID_BLUE)]),
    ]
    for index, (name, parts) in enumerate(plans):
        y, left = 66 + 68 * index, 140.0
        sheet.text(128, y + 21, name, ha="right")
        for words, count, fill in parts:
            width = max(count / 1e9 * 270, 2)
            sheet.box(left, y, width, 42, words, fill, SMALL)
            left += width
        total = sum(count for _, count, _ in parts)
        words = (
            f"{total / 1e9:.2f} GB"
            if index == 0
            else f"{total / 1e9:.2f} GB, of which {16 * ADAPTER / 1e6:.1f} MB for the adapter"
        )
        sheet.text(left + 10, y + 21, words)
    sheet.note(20, 216, "Counted: GPT-2 small in fp32, 16 bytes per trained parameter (weight, gradient, two moments).")
    sheet.note(20, 236, "Activations come on top of both.")
    return sheet


def merge_and_swap() -> Sheet:
    """Three ways to serve one adapter."""
    sheet = Sheet(366, "An adapter can stay beside its layer, be exchanged, or be merged into it")
    panels = [
        ("beside", "a little extra work,\nbase shared by all"),
        ("hot swap", "copy other A and B in;\nW is not touched"),
        ("merged", "no extra work,\none voice only"),
    ]
    for index, (name, meaning) in enumerate(panels):
        left = 24 + 262 * index
        sheet.text(left + 100, 66, name, ha="center", strong=True)
        sheet.text(left + 100, 330, meaning, ha="center")
        if name == "merged":
            sheet.box(left + 36, 140, 128, 90, "W + α/r · B A", PALE_GREEN)
            sheet.arrow((left + 100, 262), (left + 100, 234))
            sheet.arrow((left + 100, 138), (left + 100, 110))
        else:
            sheet.box(left + 6, 140, 90, 90, "W", MID_GREY)
            sheet.box(left + 120, 150, 70, 22, "B", SOLID_BLUE)
            sheet.box(left + 120, 196, 70, 22, "A", SOLID_BLUE)
            sheet.line((left + 51, 250), (left + 155, 250))
            sheet.line((left + 100, 262), (left + 100, 250))
            for x, end in ((51, 234), (155, 222)):
                sheet.arrow((left + x, 250), (left + x, end))
            sheet.arrow((left + 155, 196), (left + 155, 176))
            sheet.line((left + 51, 138), (left + 51, 124))
            sheet.line((left + 155, 148), (left + 155, 124))
            sheet.line((left + 51, 124), (left + 155, 124))
            sheet.arrow((left + 100, 124), (left + 100, 106))
            sheet.text(left + 112, 114, "+", ha="center", strong=True)
        if name == "hot swap":
            sheet.box(left + 206, 150, 26, 22, "B′", PALE_ORANGE)
            sheet.box(left + 206, 196, 26, 22, "A′", PALE_ORANGE)
            for y in (161, 207):
                sheet.arrow((left + 205, y), (left + 192, y))
        sheet.text(left + 100, 96, "y", ha="center")
        sheet.text(left + 100, 276, "x", ha="center")
    return sheet


def adapters_in_a_batch() -> Sheet:
    """Rows of different customers share the large multiplication."""
    sheet = Sheet(420, "One batch, several adapters: W is read once, the thin parts are gathered")
    adapters = {"pirate": ("P", PALE_ORANGE), "whisper": ("Q", PALE_GREEN)}
    for x, words in ((90, "rows"), (280, "shared by all"), (470, "gathered by row"), (690, "results")):
        sheet.text(x, 66, words, ha="center", strong=True)
    sheet.box(230, 84, 100, 190, "W", MID_GREY)
    for index, name in enumerate(["pirate", "whisper", "no adapter", "pirate"]):
        y, x = 84 + 50 * index, f"x{index + 1}"
        short, fill = adapters.get(name, ("", BLANK))
        sheet.box(30, y, 120, 40, f"{x}  {name}", fill)
        sheet.arrow((152, y + 20), (228, y + 20))
        sheet.text(350, y + 20, f"W {x}")
        if short:
            sheet.text(408, y + 20, "+", ha="center")
            sheet.text(428, y + 20, short)
            _thin_pair(sheet, 450, y, fill)
            sheet.text(524, y + 20, x)
        sheet.arrow((560, y + 20), (598, y + 20))
        sheet.box(602, y, 176, 40, f"y{index + 1} = W {x}" + f" + {short} {x}" * bool(short), fill)
    sheet.text(30, 330, "adapters\nin memory", strong=True)
    for index, (words, fill) in enumerate(
        [
            ("P = α/r · B A\npirate", PALE_ORANGE),
            ("Q = α/r · B A\nwhisper", PALE_GREEN),
            ("others, loaded\non demand", PALE_GREY),
        ]
    ):
        _thin_pair(sheet, 150 + 200 * index, 310, fill)
        sheet.text(224 + 200 * index, 330, words, size=SMALL)
    sheet.note(
        20,
        382,
        "Punica gathers the thin multiplications in one kernel; S-LoRA pages adapters in from main memory.",
    )
    sheet.note(20, 400, "Our notebook and our engine serve several adapters in a batch, too, without such a kernel.")
    return sheet


def _thin_pair(sheet: Sheet, x: float, y: float, fill: Fill) -> None:
    """B, tall, and A, wide."""
    sheet.cells([(x, y)], 10, 40, fill)
    sheet.cells([(x + 14, y + 15)], 46, 10, fill)


def qlora() -> Sheet:
    """What QLoRA stores in how many bits, and where gradients go."""
    sheet = Sheet(380, "QLoRA: a 4-bit base, frozen, with 16-bit adapters on top")
    sheet.box(110, 110, 110, 156, "W in NF4,\nfrozen:\n4 bits\na weight", MID_GREY)
    sheet.box(30, 110, 74, 156, "scales,\nquantized\nagain:\n0.127 bits\na weight", PALE_GREY, SMALL)
    sheet.box(380, 120, 150, 40, "B   bf16, trained", SOLID_BLUE)
    sheet.box(380, 196, 150, 40, "A   bf16, trained", SOLID_BLUE)
    sheet.box(620, 130, 150, 96, "moments of Adam,\nmoved out when\nmemory is short", PALE_PURPLE)
    sheet.arrow((455, 196), (455, 162))
    sheet.arrow((455, 300), (455, 238))
    sheet.line((165, 300), (455, 300))
    sheet.arrow((165, 300), (165, 268))
    sheet.text(310, 314, "x", ha="center")
    sheet.line((165, 108), (165, 80))
    sheet.line((455, 118), (455, 80))
    sheet.arrow((165, 80), (300, 80))
    sheet.arrow((455, 80), (320, 80))
    sheet.text(310, 80, "+", ha="center", strong=True)
    sheet.arrow((310, 72), (310, 52))
    sheet.text(324, 56, "y")
    sheet.arrow((618, 178), (534, 178), linestyle="--")
    sheet.text(576, 164, "update", size=SMALL, ha="center")
    sheet.text(232, 186, "dequantized to bf16\nfor each use", size=SMALL, ha="left")
    sheet.text(20, 346, "Gradients pass through W, but only A and B change: only they have moments to store.")
    sheet.note(
        20,
        366,
        "Parts as in the QLoRA paper: NF4, double quantization (blocks of 64 and 256), paged optimizer.",
    )
    return sheet
