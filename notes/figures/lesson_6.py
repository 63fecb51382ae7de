"""Drawings of Lesson 6: rows grouped by adapter, tiers of memory, and who may overtake."""

from __future__ import annotations

from canvas import (
    BLANK,
    HATCHED_ORANGE,
    MID_GREY,
    PALE_BLUE,
    PALE_GREEN,
    PALE_GREY,
    PALE_ORANGE,
    PALE_PURPLE,
    SMALL,
    Fill,
    Sheet,
)

FILLS = {"pirate": PALE_ORANGE, "whisper": PALE_GREEN, "telegram": PALE_BLUE, "verse": PALE_PURPLE}
VOICES, ROWS, TOKENS, REQUESTS = list(FILLS), 8, 8, 16


def groups() -> Sheet:
    """A batch, its groups, their factors, and where the results go."""
    sheet = Sheet(404, "Rows are grouped by adapter: each group needs one pair of factors, of any rank")
    for x, words in ((90, "rows of a forward"), (290, "groups"), (450, "their factors"), (664, "results")):
        sheet.text(x, 66, words, ha="center", strong=True)
    rows = ["pirate", "telegram", "pirate", "whisper", "telegram", "no adapter"]
    middles = {"pirate": 118, "telegram": 206, "whisper": 294}
    for index, name in enumerate(rows):
        y = 88 + 46 * index
        sheet.box(30, y, 120, 34, f"x{index + 1}  {name}", FILLS.get(name, BLANK))
        if name in middles:
            sheet.arrow((152, y + 17), (228, middles[name]))
        else:
            sheet.arrow((152, y + 17), (560, y + 17))
            sheet.box(564, y, 200, 34, f"y{index + 1} = W x{index + 1}")
    for (name, middle), rank in zip(middles.items(), (8, 16, 4), strict=True):
        own = [str(index + 1) for index, row in enumerate(rows) if row == name]
        xs, ys = (", ".join(f"{letter}{number}" for number in own) for letter in "xy")
        sheet.box(230, middle - 24, 120, 48, f"{name}\n{xs}", FILLS[name])
        sheet.arrow((352, middle), (392, middle))
        _factors(sheet, 400, middle, rank, FILLS[name])
        sheet.arrow((516, middle), (560, middle))
        sheet.box(564, middle - 17, 200, 34, f"{ys} = W x + update", FILLS[name])
    sheet.note(20, 372, "W x is one product for all rows. Each adapter adds two thin ones, for one row or for many.")
    sheet.note(20, 391, "Nothing is copied or padded, and a row without an adapter keeps the bits of W x.")
    return sheet


def _factors(sheet: Sheet, x: float, middle: float, rank: int, fill: Fill) -> None:
    """A, as wide as its rank, and B, as high as its rank."""
    thick = 1.5 * rank
    sheet.cells([(x, middle - 24)], thick, 48, fill)
    sheet.cells([(x + thick + 8, middle - thick / 2)], 50, thick, fill)
    sheet.text(x + 104, middle - 30, f"rank {rank}", size=SMALL, ha="right")


def tiers() -> Sheet:
    """Where adapters lie, and what moves them."""
    sheet = Sheet(326, "Adapters lie in tiers: few beside the model, more in memory, all on disk")
    places = [
        ("GPU memory", 70, ["pirate", "telegram"]),
        ("main memory", 152, ["whisper", "verse"]),
        ("disk or storage", 234, []),
    ]
    for name, y, voices in places:
        sheet.text(150, y + 26, name, ha="right", strong=True)
        sheet.box(166, y, 600, 52, "", PALE_GREY)
        for index, voice in enumerate(voices):
            sheet.box(380 + 110 * index, y + 9, 100, 34, voice, FILLS[voice])
    sheet.box(176, 79, 110, 34, "base model", MID_GREY)
    sheet.box(292, 79, 80, 34, "KV cache", HATCHED_ORANGE, SMALL)
    sheet.text(610, 96, "adapters in use", size=SMALL)
    sheet.text(610, 178, "used a while ago", size=SMALL)
    sheet.text(380, 260, "everybody's files, hundreds or thousands", size=SMALL)
    sheet.arrow((420, 150), (420, 124))
    sheet.arrow((560, 124), (560, 150))
    sheet.arrow((420, 232), (420, 206))
    sheet.text(430, 137, "fetch", size=SMALL)
    sheet.text(570, 137, "make room", size=SMALL)
    sheet.text(430, 219, "load on demand", size=SMALL)
    sheet.note(
        20, 310, "LoRAX moves adapters between all three; S-LoRA keeps them in main memory, and one pool on the GPU."
    )
    return sheet


def in_order() -> list[tuple[int, int, str]]:
    """(row, first forward, voice) of each request, two voices at a time, nobody overtaking."""
    return [(number % 2, number // 2 * TOKENS, VOICES[number % 4]) for number in range(REQUESTS)]


def overtaking() -> list[tuple[int, int, str]]:
    """The same where the other requests of the two voices go first."""
    return [(row, start * TOKENS, VOICES[2 * start + row % 2]) for start in range(2) for row in range(ROWS)]


def order_of_service() -> Sheet:
    """Eight rows over forwards, strictly in order and with overtaking."""
    sheet = Sheet(456, "Room for two adapters: in order most rows stay empty, overtaking fills them")
    scale, height = 10, 15
    for top, words, plan in ((86, "in order", in_order()), (276, "overtaking", overtaking())):
        forwards = max(start for _, start, _ in plan) + TOKENS
        sheet.text(20, top - 16, f"{words}: {forwards} forwards", strong=True)
        sheet.cells([(130, top + row * height) for row in range(ROWS)], forwards * scale, height, PALE_GREY)
        for voice, fill in FILLS.items():
            places = [(130 + start * scale, top + row * height) for row, start, own in plan if own == voice]
            sheet.cells(places, TOKENS * scale, height, fill)
        sheet.text(118, top + ROWS * height / 2, "8 rows", ha="right")
    sheet.key(130, 420, [(FILLS[voice], voice, 110) for voice in VOICES] + [(PALE_GREY, "empty", 90)])
    sheet.note(20, 443, "Counted: 16 requests for the four voices in turn, 8 tokens each; a voice in use cannot go.")
    sheet.ruler(lambda forward: 130 + forward * scale, (0, 16, 32, 48, 64), 214)
    return sheet
