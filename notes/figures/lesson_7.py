"""Drawings of Lesson 7: a closed and an open loop before the same server, and what two clocks cover."""

from __future__ import annotations

from canvas import HATCHED_ORANGE, PALE_BLUE, PALE_GREY, SMALL, SOLID_BLUE, Sheet

ROWS, SERVICE, END = 8, 8, 32  # requests that run at a time; how long each takes, and when the drawing ends, in steps
ARRIVALS = [0.65 * number for number in range(48)]  # of the open loop: 12 come while 8 are served


def closed_counts() -> list[tuple[int, int]]:
    """(running, waiting) at each step of the closed loop: eight askers, who never wait for a row."""
    return [(ROWS, 0)] * END


def open_counts() -> list[tuple[int, int]]:
    """(running, waiting) at each step, where requests come at `ARRIVALS`."""
    free, served = [0.0] * ROWS, []
    for arrival in ARRIVALS:
        row = free.index(min(free))
        start = max(arrival, free[row])
        free[row] = start + SERVICE
        served.append((arrival, start))
    counts = []
    for step in range(END):
        running = sum(start <= step < start + SERVICE for _, start in served)
        waiting = sum(arrival <= step < start for arrival, start in served)
        counts.append((running, waiting))
    return counts


def open_and_closed() -> Sheet:
    """How many requests are in the server, step by step, for both ways to load it."""
    sheet = Sheet(396, "The same server: a closed loop never sees the queue that an open loop makes")
    bottom, size = 318, 10.5
    loops = [
        (40, "closed loop: eight askers, who wait for answers", closed_counts()),
        (424, "open loop: people come at their own times", open_counts()),
    ]
    for left, words, counts in loops:
        sheet.text(left, 66, words, strong=True)
        for is_running, fill in ((True, PALE_BLUE), (False, HATCHED_ORANGE)):
            levels = [
                (step, level)
                for step, (running, waiting) in enumerate(counts)
                for level in range(running + waiting)
                if (level < running) == is_running
            ]
            sheet.cells([(left + step * size, bottom - (level + 1) * size) for step, level in levels], size, size, fill)
        sheet.line((left, bottom), (left + END * size, bottom))
        sheet.text(left + END * size, bottom + 16, "time", size=SMALL, ha="right")
        sheet.text(left, bottom + 16, "requests in the server", size=SMALL)
    sheet.key(40, 356, [(PALE_BLUE, "runs, in one of 8 rows", 220), (HATCHED_ORANGE, "waits for a row", 160)])
    sheet.note(20, 382, "Counted: each request keeps its row for 8 steps; on the right 12 come while 8 are served.")
    return sheet


def two_clocks() -> Sheet:
    """The way of a request and of its first token, and which part of it each clock covers."""
    sheet = Sheet(230, "The server's clock starts when it has read the request, the asker's when it is due")
    stations = [
        (90, "in the client", HATCHED_ORANGE),
        (90, "on the way", PALE_GREY),
        (100, "in a socket", HATCHED_ORANGE),
        (70, "is read", PALE_GREY),
        (140, "waits for a row", HATCHED_ORANGE),
        (120, "first forward", SOLID_BLUE),
        (110, "on the way back", PALE_GREY),
    ]
    x, edges = 40.0, []
    for width, words, fill in stations:
        sheet.box(x, 96, width, 44, "", fill)
        sheet.text(x + width / 2, 78, words, size=SMALL, ha="center")
        edges.append((x, x + width))
        x += width
    sheet.span(edges[4][0], edges[5][1], 160, "TTFT by the server's clock", below=True)
    sheet.span(edges[0][0], edges[6][1], 196, "TTFT by the asker's clock", below=True)
    return sheet
