"""Charts that several lessons draw: curves over tokens, throughput and latency, bars, time lines, the scoreboard.

Every function draws on the axes it is given and returns them, so that a figure can be composed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

from measure import MISS, Scoreboard, Timing, Trace

from .style import BLUE, GREY, LINE_STYLES, MARKERS, ORANGE, PALE, PALETTE


def per_step_curves(series: Mapping[str, Sequence[float]], ax: Axes | None = None) -> Axes:
    """Seconds of every step, one curve per label: a faint line for each value, a bold running median."""
    ax = ax or plt.subplots()[1]
    for (label, seconds), color, style in zip(series.items(), PALETTE, LINE_STYLES, strict=False):
        ms = np.asarray(seconds) * 1e3
        steps = np.arange(1, len(ms) + 1)
        ax.plot(steps, ms, color=color, alpha=0.25, linewidth=0.8)
        ax.plot(steps, running_median(ms), color=color, linestyle=style, linewidth=2, label=label)
    ax.set(xlabel="token number", ylabel="time for this token (ms)")
    ax.set_ylim(bottom=0, top=1.15 * max(np.percentile(np.asarray(s) * 1e3, 99) for s in series.values()))
    ax.legend()
    return ax


def running_median(values: Sequence[float], window: int = 11) -> np.ndarray:
    """The median of the `window` values around each one; fewer at the ends."""
    half = window // 2
    return np.array([np.median(values[max(0, i - half) : i + half + 1]) for i in range(len(values))])


def throughput_and_latency(
    batch_sizes: Sequence[int], throughput: Sequence[float], latency: Sequence[float], ax: Axes | None = None
) -> Axes:
    """Throughput (tokens/s, left axis) and latency (s, right axis) over the batch size."""
    ax = ax or plt.subplots()[1]
    right = ax.twinx()
    right.spines["right"].set_visible(True)
    right.grid(False)
    (left_line,) = ax.plot(batch_sizes, throughput, color=BLUE, marker="o", label="throughput (left axis)")
    (right_line,) = right.plot(
        batch_sizes,
        latency,
        color=ORANGE,
        marker="s",
        linestyle="--",
        label="latency of the batch (right axis)",
    )
    ax.set_xscale("log", base=2)
    ax.set_xticks(batch_sizes, [str(size) for size in batch_sizes])
    ax.minorticks_off()
    ax.set(xlabel="batch size (requests)", ylabel="throughput (tokens/s)")
    right.set_ylabel("latency (s)")
    ax.set_ylim(bottom=0)
    right.set_ylim(bottom=0)
    ax.legend(handles=[left_line, right_line], loc="upper left")
    return ax


def timing_bars(timings: Mapping[str, Timing], ax: Axes | None = None) -> Axes:
    """One horizontal bar per label: the median, with the quartiles as a whisker."""
    ax = ax or plt.subplots(figsize=(8, 0.6 * len(timings) + 1.2))[1]
    longest_s = max(timing.quartiles_s[1] for timing in timings.values())
    unit, per_second = ("s", 1) if longest_s >= 1 else ("ms", 1e3)
    medians = per_second * np.array([timing.median_s for timing in timings.values()])
    low, high = per_second * np.array([timing.quartiles_s for timing in timings.values()]).T
    places = np.arange(len(timings))
    ax.barh(places, medians, xerr=[medians - low, high - medians], color=BLUE, ecolor=GREY, capsize=4, height=0.6)
    for place, value, end in zip(places, medians, high, strict=True):
        ax.text(end, place, f"  {value:.3g} {unit}", va="center")
    ax.set_yticks(places, list(timings))
    ax.invert_yaxis()
    ax.set_xlim(0, 1.25 * high.max())
    ax.set_xlabel(f"time ({unit}), median and quartiles")
    ax.grid(False, axis="y")
    return ax


def timeline(trace: Trace, ax: Axes | None = None, *, long_request: int | None = None) -> Axes:
    """Which request holds which slot at every forward: the picture of batching.

    A coloured cell is a token somebody asked for; two shades alternate so that neighbours can be told
    apart. A pale cell is an idle slot.

    Args:
        long_request: requests that gained at least this many tokens are drawn in orange.
    """
    ax = ax or plt.subplots(figsize=(9, 0.32 * trace.slots + 1.6))[1]
    tokens = [len(times) for times in trace.token_times_s()]
    order: dict[tuple[int, int], int] = {}  # (slot, request) -> how many came before it in this slot
    grid = np.zeros((trace.slots, trace.forwards), dtype=int)
    for step, requests in enumerate(trace.slot_rows()):
        for slot, request in enumerate(requests):
            if request is None:
                continue
            place = order.setdefault((slot, request), sum(1 for held, _ in order if held == slot))
            is_long = long_request is not None and tokens[request] >= long_request
            grid[slot, step] = 1 + 2 * is_long + place % 2
    colors = [PALE, BLUE, "#4d82b8", ORANGE, "#f3be7c"]
    ax.pcolormesh(grid, cmap=ListedColormap(colors), vmin=-0.5, vmax=4.5)
    ax.set_yticks(np.arange(trace.slots) + 0.5, [str(slot) for slot in range(trace.slots)])
    ax.invert_yaxis()
    ax.grid(False)
    ax.set(xlabel="forward pass", ylabel="slot")
    handles = [
        Patch(color=BLUE, label=_shades("short request" if long_request else "request", 2 in grid)),
        Patch(color=PALE, label="idle"),
    ]
    if long_request:
        handles.insert(1, Patch(color=ORANGE, label=_shades(f"{long_request} tokens or more", 4 in grid)))
    ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(0, -0.22), ncols=3)
    return ax


def _shades(words: str, two: bool) -> str:
    """What a colour of a time line means, with a remark where its lighter shade occurs too."""
    return f"{words} (two shades in turn)" if two else words


def grouped_bars(series: Mapping[str, Mapping[str, float]], digits: str = "g") -> Axes:
    """Bars side by side: for each kind one bar of every series, with its value above it.

    Args:
        series: for each name in the legend the values by kind, all with the same kinds.
        digits: how the values are written, as in a format string.
    """
    ax = plt.subplots()[1]
    kinds = list(next(iter(series.values())))
    width = 0.8 / len(series)
    for index, ((name, values), color) in enumerate(zip(series.items(), PALETTE, strict=False)):
        places = np.arange(len(kinds)) + (index - (len(series) - 1) / 2) * width
        ax.bar(places, [values[kind] for kind in kinds], width, color=color, edgecolor="white", label=name)
        for place, kind in zip(places, kinds, strict=True):
            ax.text(place, values[kind], f"{values[kind]:{digits}}", ha="center", va="bottom")
    ax.set_xticks(range(len(kinds)), kinds)
    ax.grid(False, axis="x")
    return ax


def predicted_and_measured(*boards: Scoreboard, ax: Axes | None = None) -> Axes:
    """The predictions of these scoreboards as points: predicted across, measured up, both logarithmic.

    A point on the diagonal was predicted exactly; the pale band is what does not count as a miss. Counts and bytes,
    which lie on the diagonal by definition, would only stretch the axes and are left out. The numbers are those of
    the table; several boards each have a mark of their own and no numbers.
    """
    ax = ax or plt.subplots(figsize=(7, 5.4))[1]
    rows = [row for board in boards for row in board.rows]
    drawn = np.array([(row.predicted, row.measured) for row in rows if not row.exact])
    ends = np.array([drawn.min() / 2, drawn.max() * 2])
    ax.fill_between(ends, ends / MISS, ends * MISS, color=PALE, label=f"within a factor of {MISS}")
    ax.plot(ends, ends, color=GREY, linewidth=1, label="measured as predicted")
    ax.set(xscale="log", yscale="log", xlim=ends, ylim=ends, xlabel="predicted (each in its own unit)")
    marks = list(zip((*PALETTE, GREY), (*MARKERS, "v"), strict=True))
    for place, board in enumerate(boards):
        points = np.array([(row.predicted, row.measured) for row in board.rows if not row.exact]).T
        color, marker = marks[place % len(marks)]
        inside = color if place < len(marks) else "none"  # from the sixth board on, the marks are hollow
        ax.scatter(*points, facecolors=inside, edgecolors=color, marker=marker, s=30, zorder=3, label=board.lesson)
    exact = sum(row.exact for row in rows)
    ax.plot([], [], " ", label=f"not drawn: {exact} exact counts and bytes")
    ax.set_ylabel("measured (the same unit)")
    hits = sum(not row.missed for row in rows if not row.exact)
    ax.set_title(f"{hits} of {len(drawn)} predictions are within a factor of {MISS}")
    ax.legend(loc="upper left")
    if len(boards) == 1:
        numbered = {number: row for number, row in enumerate(rows, 1) if not row.exact}
        _number_points(ax, {number: (row.predicted, row.measured) for number, row in numbered.items()})
    return ax


def _number_points(ax: Axes, points: Mapping[int, tuple[float, float]]) -> None:
    """A number beside each point, in the first of several places where it covers no point and no other number.

    Upper points choose first, and further down the places below come first: so a number stands on its point's side.
    """
    places = [(6, -4), (-18, -4), (-6, -16), (10, -16), (-22, -16), (-6, 7), (10, 7), (-22, 7), (24, -4), (-36, -4)]
    taken = [tuple(ax.transData.transform(point)) for point in points.values()]
    pixels_per_point = ax.figure.dpi / 72
    for number, point in sorted(points.items(), key=lambda numbered: -numbered[1][1]):
        x, y = ax.transData.transform(point)
        corners = [(x + dx * pixels_per_point, y + dy * pixels_per_point) for dx, dy in places]
        free = [place for place, (cx, cy) in enumerate(corners) if not _covers(cx, cy, taken, pixels_per_point)]
        chosen = free[0] if free else 0
        cx, cy = corners[chosen]
        taken += [(cx + 4 * pixels_per_point, cy + 4 * pixels_per_point)]
        ax.annotate(str(number), point, xytext=places[chosen], textcoords="offset points", fontsize=9)


def _covers(x: float, y: float, taken: Sequence[tuple[float, float]], scale: float) -> bool:
    """Whether a number of two digits whose lower left corner is here would cover one of these pixels."""
    return any(x - 4 * scale < px < x + 14 * scale and y - 4 * scale < py < y + 12 * scale for px, py in taken)
