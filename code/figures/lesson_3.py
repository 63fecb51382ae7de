"""What only Lesson 3 draws: batches cell by cell, time lines, gains, waits, numbers of slots, seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from helpers import Batch
from measure import Trace

from .charts import timeline
from .style import BLUE, GREY, LINE_STYLES, ORANGE, PALE, PALETTE

CELLS = {"padding": PALE, "in the KV cache": BLUE, "new: the next forward reads it": ORANGE}


def batches(title: str, parts: Mapping[str, Batch], decode: Callable[[list[int]], str]) -> Figure:
    """Attention masks of some batches side by side, with the text of the token that each cell stands for.

    Args:
        parts: the batches by the title of their panel; their columns are counted from the newest.
        decode: the text of some token ids.
    """
    most = max(len(batch) for batch in parts.values())
    fig, axes = plt.subplots(1, len(parts), figsize=(10, 1.1 + 0.5 * most), sharex=True)
    for ax, (label, batch) in zip(axes, parts.items(), strict=True):
        _draw_batch(ax, batch, decode)
        ax.set(title=label, xlabel="column, counted from the newest", ylim=(most - 0.5, -0.5), yticks=range(most))
        ax.title.set_fontsize(10)
    axes[0].set_ylabel("row")
    fig.suptitle(title, x=0.01, ha="left")
    handles = [Patch(color=color, label=kind) for kind, color in CELLS.items()]
    fig.legend(handles=handles, loc="outside lower left", ncols=3)
    return fig


def _draw_batch(ax: Axes, batch: Batch, decode: Callable[[list[int]], str]) -> None:
    """One batch: a cell for every column of every row."""
    kinds = np.array(batch.attention_mask.tolist())  # (B, S+T): 0 is padding, 1 a token
    kinds[:, -batch.input_ids.shape[1] :] *= 2  # the new tokens
    rows, columns = kinds.shape
    lines = np.arange(-columns, 1) + 0.5, np.arange(rows + 1) - 0.5
    ax.pcolormesh(*lines, kinds, cmap=ListedColormap(list(CELLS.values())), vmin=0, vmax=2, edgecolor="white")
    for row, request in enumerate(batch.requests):
        length = int((kinds[row] > 0).sum())
        read = (request.prompt_ids + request.output_ids)[:length]
        for place, token in enumerate(reversed(read)):
            text = decode([token]).replace("\n", "\u21b5").strip()  # a line break shows as an arrow
            color = "white" if kinds[row, -1 - place] == 1 else "black"
            ax.text(-place, row, text, ha="center", va="center", fontsize=9, color=color)
    ax.grid(False)


def time_lines(traces: Mapping[str, Trace], *, long_request: int) -> Figure:
    """The time lines of some runs below each other, on one scale of forwards."""
    height = sum(0.25 * trace.slots + 0.6 for trace in traces.values()) + 0.5
    fig, axes = plt.subplots(len(traces), 1, figsize=(9, height), sharex=True)
    for ax, (name, trace) in zip(axes, traces.items(), strict=True):
        timeline(trace, ax, long_request=long_request)
        share = f"{trace.slot_utilization:.0%} of the cells make a token"
        ax.set_title(f"{name.capitalize()} batching takes {trace.forwards} forwards, and {share}")
    for ax in axes[:-1]:
        ax.get_legend().remove()
        ax.set_xlabel("")
    return fig


def gains(predicted: Mapping[str, float], measured: Mapping[str, Sequence[float]]) -> Axes:
    """How many times as long static batching takes, by workload: counted, and measured as the median of some pairs."""
    ax = plt.subplots()[1]
    places = np.arange(len(predicted))
    counted = np.array(list(predicted.values()))
    medians, lows, highs = (np.array([f(measured[name]) for name in predicted]) for f in (np.median, min, max))
    look = {"edgecolor": GREY, "width": 0.38}
    left = ax.bar(places - 0.2, counted, color=PALE, label="predicted by counting", **look)
    right = ax.bar(places + 0.2, medians, color=BLUE, label="measured, median", **look)
    for bars, color in ((left, "black"), (right, "white")):
        ax.bar_label(bars, fmt="%.2f", label_type="center", color=color)
    whiskers = {"fmt": "none", "color": ORANGE, "capsize": 4, "label": "range of all pairs"}
    ax.errorbar(places + 0.34, medians, [medians - lows, highs - medians], **whiskers)
    ax.axhline(1, color=GREY, linestyle=":")
    ax.set_xticks(places, list(predicted))
    ax.set(xlabel="tokens asked for", ylabel="time static / time continuous")
    ax.set_ylim(0, 1.3 * max(*counted, *highs))
    ax.set_title(
        f"The mix of lengths decides: the gain goes from {medians.max():.2f} down to {medians.min():.2f} times"
    )
    ax.legend()
    return ax


def first_tokens_and_answers(traces: Mapping[str, Trace]) -> Figure:
    """How many requests have their first token, and their whole answer, after how long."""
    fig, axes = plt.subplots(1, 2, figsize=(9.5, 3.4), sharey=True)
    seconds = [[trace.ttft_s() for trace in traces.values()], [trace.latency_s() for trace in traces.values()]]
    for ax, both in zip(axes, seconds, strict=True):
        for name, times, color, style in zip(traces, both, PALETTE, LINE_STYLES, strict=False):
            share = np.arange(1, len(times) + 1) / len(times) * 100
            ax.step(np.sort(times), share, where="post", color=color, linestyle=style, label=name)
    for ax, both, what in zip(axes, seconds, ("TTFT", "latency"), strict=True):
        first, last = both[0].mean(), both[-1].mean()
        ax.set_title(f"The mean {what} goes from {first:.2f} s to {last:.2f} s")
    axes[0].set(xlabel="time to first token, waiting included (s)", ylabel="requests (%)", ylim=(0, 103))
    axes[1].set_xlabel("latency, waiting included (s)")
    axes[1].legend(loc="lower right")
    return fig


def numbers_of_slots(sweep: Mapping[int, Trace]) -> Figure:
    """Throughput and latency over the number of slots, beside a throughput for which every forward costs the same."""
    fig, axes = plt.subplots(1, 2, figsize=(9.5, 3.4))
    slots, runs = list(sweep), list(sweep.values())
    counted = [runs[0].throughput * runs[0].forwards / run.forwards for run in runs]
    median_s, late_s = np.array([np.percentile(run.latency_s(), [50, 95]) for run in runs]).T
    axes[0].plot(slots, counted, "s--", color=GREY, label="if all forwards cost the same")
    axes[0].plot(slots, [run.throughput for run in runs], "o-", label="measured")
    axes[1].plot(slots, late_s, "s--", color=ORANGE, label="95 % are done by then")
    axes[1].plot(slots, median_s, "o-", label="half are done by then")
    ratio = runs[-1].throughput / runs[0].throughput
    axes[0].set(title=f"{slots[-1]} slots make {ratio:.1f} times the tokens/s of {slots[0]} slots")
    axes[0].set_ylabel("throughput (tokens/s)")
    axes[1].set(title=f"The median latency goes from {median_s[0]:.2f} s to {median_s[-1]:.2f} s", ylabel="latency (s)")
    for ax in axes:
        ax.set_xscale("log", base=2)
        ax.set_xticks(slots, [str(number) for number in slots])
        ax.minorticks_off()
        ax.set(xlabel="slots", ylim=(0, 1.3 * ax.get_ylim()[1]))
        ax.legend()
    return fig


def seconds_taken_apart(predicted_s: Mapping[str, float], traces: Mapping[str, Trace]) -> Axes:
    """The seconds of some runs as the price list gives them, and as measured: in the forwards and between them."""
    ax = plt.subplots(figsize=(8, 2.8))[1]
    places = np.arange(len(traces))
    inside = np.array([sum(row.seconds for row in trace.rows) for trace in traces.values()])
    total = np.array([trace.total_s for trace in traces.values()])
    prices = np.array([predicted_s[name] for name in traces])
    ax.barh(places - 0.2, prices, 0.36, color=PALE, label="predicted by the price list")
    ax.barh(places + 0.2, inside, 0.36, color=BLUE, label="measured: in the forwards")
    ax.barh(places + 0.2, total - inside, 0.36, inside, color=ORANGE, label="measured: between them")
    ax.set_yticks(places, [f"{name}\n{trace.forwards} forwards" for name, trace in traces.items()])
    ax.invert_yaxis()
    gain, priced = total[0] / total[-1], prices[0] / prices[-1]
    ax.set_title(f"Continuous batching is {gain:.2f} times as fast here; the prices say {priced:.2f} times")
    ax.set_xlabel("time (s)")
    ax.legend(loc="lower right")
    return ax
