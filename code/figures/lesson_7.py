"""What only Lesson 7 draws: who waits how long for a first token, and what of the offered load comes in time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from .style import GREY, LINE_STYLES, MARKERS, PALETTE


def first_tokens(measured_s: Sequence[float], predicted_s: Sequence[float], rows: int) -> Axes:
    """The TTFT (s) of every asker, the fastest first, beside what was predicted.

    Args:
        measured_s, predicted_s: as many as there are askers, in any order.
        rows: requests that run at a time; a line marks where each round of so many ends.
    """
    ax = plt.subplots()[1]
    places = np.arange(1, len(measured_s) + 1)
    ax.step(places, np.sort(predicted_s), where="mid", color=GREY, linestyle="--", label="predicted")
    ax.plot(places, np.sort(measured_s), marker="o", markersize=4, linestyle="none", color=PALETTE[0], label="measured")
    for end in range(rows, len(measured_s), rows):
        ax.axvline(end + 0.5, color=GREY, linewidth=0.6, linestyle=":")
    ax.set(xlabel="asker, by time to first token", ylabel="time to first token (s)")
    ax.set_ylim(bottom=0)
    rounds = -(-len(measured_s) // rows)
    ax.set_title(f"{len(measured_s)} askers on {rows} rows get their first tokens in {rounds} rounds")
    ax.legend(loc="upper left")
    return ax


def waits_over_time(runs: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Axes:
    """The TTFT (s) of every request over the time at which it was sent, points and a line for each run.

    Args:
        runs: for each run, under its name, the arrivals (s) and the TTFTs (s) of its requests. The title is about the
            longest wait of the first and of the last of them.
    """
    ax = plt.subplots()[1]
    for (label, (arrivals_s, ttfts_s)), marker, style, color in zip(
        runs.items(), MARKERS, LINE_STYLES, PALETTE, strict=False
    ):
        order = np.argsort(arrivals_s)
        times, waits = np.asarray(arrivals_s)[order], np.asarray(ttfts_s)[order]
        ax.plot(times, waits, linestyle=style, linewidth=0.8, marker=marker, markersize=4, color=color, label=label)
    ax.set(xlabel="time at which the request was sent (s)", ylabel="time to first token (s)")
    ax.set_ylim(bottom=0)
    (first, (_, first_s)), (last, (_, last_s)) = list(runs.items())[0], list(runs.items())[-1]
    ax.set_title(f"The longest wait: {max(first_s):.2f} s ({first}), {max(last_s):.2f} s ({last})")
    ax.legend(loc="upper left")
    return ax


def goodput(rates: Sequence[float], completed: Sequence[float], in_time: Sequence[float], knee: float) -> Axes:
    """Answers per second over requests per second: all that were completed, and those in time.

    Args:
        rates: offered, ascending.
        completed, in_time: answers per second at each rate.
        knee: the highest rate at which the promise was kept; 0 if it was kept nowhere.
    """
    ax = plt.subplots()[1]
    ax.plot(rates, rates, color=GREY, linestyle=":", label="everything that was asked")
    ax.plot(rates, completed, color=PALETTE[0], marker="o", label="answered (throughput)")
    ax.plot(rates, in_time, color=PALETTE[1], marker="s", linestyle="--", label="answered in time (goodput)")
    if knee:
        ax.vlines(knee, 0, knee, color=GREY, linewidth=0.8)
    ax.set(xlabel="requests per second that came", ylabel="answers per second")
    ax.set_ylim(bottom=0)
    ax.set_title(
        f"The promise is kept up to {knee:.1f} requests per second" if knee else "The promise is kept at no rate"
    )
    ax.legend(loc="upper left")
    return ax
