"""Drawings of Lesson 8: the block tables of three requests that begin alike, and one forward that checks a draft."""

from __future__ import annotations

from canvas import (
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
from engine.blocks import Blocks
from engine.request import Request, Sampling
from engine.scheduler import Scheduler

BOOK, BLOCK_TOKENS, COUNT = 70, 16, 24  # tokens of the book and of a block, blocks of the cache
NAMES = ("Anna", "Ben", "Carla")
OWN = (PALE_BLUE, PALE_ORANGE, PALE_GREEN)


def three_tables() -> list[list[int]]:
    """The block tables that the engine's scheduler gives three requests on one book, the second and third at once."""
    scheduler = Scheduler(Blocks(COUNT, BLOCK_TOKENS), max_rows=8, step_tokens=256)
    requests = []
    for number, question_tokens in enumerate((9, 20, 14)):
        ids = [*range(BOOK), *range(1000 * (number + 1), 1000 * (number + 1) + question_tokens)]
        requests.append(Request(number, ids, len(ids), Sampling(), None, None, 0.0))
    for newcomers in (requests[:1], requests[1:]):
        for request in newcomers:
            scheduler.add(request)
        scheduler.done(scheduler.schedule())
        for request in scheduler.running:
            request.ids.append(0)
    return [request.blocks for request in requests]


def pages() -> Sheet:
    """Three block tables above the cache that they point into."""
    tables = three_tables()
    users = [[name for name, table in zip(NAMES, tables, strict=True) if block in table] for block in range(COUNT)]

    def fill(block: int) -> Fill:
        if len(users[block]) > 1:
            return PALE_PURPLE
        return OWN[NAMES.index(users[block][0])] if users[block] else PALE_GREY

    sheet = Sheet(372, "Three requests on one book: the book's full blocks are in the cache once")
    sheet.text(20, 62, "block tables", strong=True)
    for row, (name, table) in enumerate(zip(NAMES, tables, strict=True)):
        y = 78 + 42 * row
        sheet.text(110, y + 17, name, ha="right")
        sheet.table(122, y, [[str(block) for block in table]], 56, 34, [[fill(block) for block in table]])
    sheet.text(20, 226, "the cache, in blocks of 16 tokens", strong=True)
    numbers = [[str(block) for block in range(start, start + 12)] for start in (0, 12)]
    fills = [[fill(block) for block in range(start, start + 12)] for start in (0, 12)]
    sheet.table(60, 242, numbers, 56, 34, fills)
    entries = [(PALE_PURPLE, "used by all three", 150), *((own, n, 90) for own, n in zip(OWN, NAMES, strict=True))]
    sheet.key(60, 330, [*entries, (PALE_GREY, "free", 80)])
    sheet.note(
        20, 358, "Drawn by the engine's scheduler: a book of 70 tokens fills 4 blocks; its last 6 tokens are read anew."
    )
    return sheet


def draft() -> Sheet:
    """A text that holds the last tokens once before, the draft, and what one forward says of it."""
    sheet = Sheet(300, "One forward checks a whole draft: what agrees is kept, and one token comes on top")
    words = ["Mia", "lost", "the", "red", "kite", ".", "...", "Who", "lost", "the"]
    found, last = (1, 2), (8, 9)
    fills = [
        PALE_BLUE if index in found + last else PALE_GREEN if 3 <= index <= 5 else PALE_GREY for index in range(10)
    ]
    sheet.text(20, 62, "the text so far: its last two tokens stand there once before", strong=True)
    sheet.table(20, 78, [words], 76, 34, [fills])
    sheet.text(20, 142, "one forward reads the last token and the draft, which is what followed there", strong=True)
    sheet.table(20, 158, [["the", "red", "kite", "."]], 76, 34, [[PALE_BLUE, PALE_GREEN, PALE_GREEN, PALE_GREEN]])
    sheet.table(20, 222, [["red", "kite", "?", "..."]], 76, 34, [[PALE_ORANGE, PALE_ORANGE, PALE_ORANGE, MID_GREY]])
    for index in range(4):
        sheet.arrow((58 + 76 * index, 194), (58 + 76 * index, 220))
    sheet.text(350, 214, "what the model says after each of them", strong=True)
    sheet.text(350, 234, "red and kite agree with the draft;", size=SMALL)
    sheet.text(350, 252, "the question mark takes the place of the full stop: 3 tokens", size=SMALL)
    sheet.note(20, 284, "An example in words. What comes after the first wrong guess does not count (grey).")
    return sheet
