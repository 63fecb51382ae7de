"""What only Lesson 2 draws: decode steps and their prediction, batch sizes, padding, and who waits how long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .charts import throughput_and_latency
from .style import BLUE, GREY, ORANGE, PALE, PURPLE

Curves = Mapping[str, Sequence[float]]


def predicted_and_measured_steps(
    sizes: Sequence[int], predicted: Curves, measured: Curves, layers_alone: Curves
) -> Figure:
    """The seconds of a decode step over the rows of the batch, one panel for each model.

    Args:
        sizes: rows in the batch.
        predicted, measured: seconds of a step, by model. layers_alone: of f and the linear layers.
    """
    figure, axes = plt.subplots(1, len(measured), figsize=(10, 4), sharey=True, squeeze=False)
    growth = []
    for ax, (name, step_s) in zip(axes[0], measured.items(), strict=True):
        _step_curve(ax, sizes, predicted[name], "predicted: f + max(r, bc)", GREY, "--", "")
        _step_curve(ax, sizes, layers_alone[name], "f and the linear layers, timed alone", ORANGE, ":", "s")
        _step_curve(ax, sizes, step_s, "measured", BLUE, "-", "o")
        ax.set(title=name, xlabel="rows in the batch")
        growth.append(f"{_times(step_s, sizes, 8):.1f} ({name})")
    axes[0, 0].set_ylabel("decode step (ms)")
    axes[0, 0].legend()
    figure.suptitle(f"A step of 8 rows takes {_listed(growth)} times as long as a step of one row", x=0.01, ha="left")
    return figure


def packed_and_unpacked_steps(sizes: Sequence[int], predicted: Sequence[float], measured: Curves) -> Axes:
    """The seconds of a decode step over the rows of the batch: a prediction, and several ways to store the weights."""
    ax = plt.subplots()[1]
    _step_curve(ax, sizes, predicted, "predicted", GREY, "--", "")
    looks = zip((ORANGE, BLUE), ("-", "-."), ("s", "o"), strict=True)
    for (name, step_s), (color, style, marker) in zip(measured.items(), looks, strict=True):
        _step_curve(ax, sizes, step_s, f"measured, {name}", color, style, marker)
    factors = _listed([f"{_times(step_s, sizes, 2):.1f} ({name})" for name, step_s in measured.items()])
    ax.set(xlabel="rows in the batch", ylabel="decode step (ms)")
    ax.set_title(f"A step of 2 rows takes {factors} times as long as one of 1 row")
    ax.legend()
    return ax


def _step_curve(
    ax: Axes, sizes: Sequence[int], seconds: Sequence[float], label: str, color: str, style: str, marker: str
) -> None:
    """One curve of milliseconds over batch sizes, both axes in powers of two."""
    ax.plot(sizes, 1e3 * np.asarray(seconds), color=color, linestyle=style, marker=marker, label=label)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log", base=2)
    ax.set_xticks(sizes, [str(size) for size in sizes])
    ax.yaxis.set_major_formatter("{x:g}")
    ax.minorticks_off()


def _times(seconds: Sequence[float], sizes: Sequence[int], size: int) -> float:
    """How many times as long this batch size takes as a single row."""
    return seconds[list(sizes).index(size)] / seconds[0]


def _listed(words: Sequence[str]) -> str:
    return " and ".join(words)


def throughput_against_latency(
    sizes: Sequence[int], throughput: Sequence[float], latency_s: Sequence[float], knee: float, model: str
) -> Figure:
    """Left: throughput and latency over the batch size, with the knee. Right: one against the other."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), width_ratios=(1.25, 1))
    throughput_and_latency(list(sizes), throughput, latency_s, left)
    left.axvline(knee, color=GREY, linestyle=":")
    left.annotate("knee", (knee, 0), (4, 4), textcoords="offset points")
    right.plot(latency_s, throughput, color=PURPLE, marker="^")
    _name_the_points(right, sizes, latency_s, throughput)
    at = largest_size_up_to(knee, sizes)
    ring = {"color": "black", "fillstyle": "none", "markersize": 14, "linestyle": "none"}
    right.plot(latency_s[at], throughput[at], marker="o", label="last size up to the knee", **ring)
    right.set(xlabel="latency of a request (s)", ylabel="throughput (tokens/s)", ylim=0)
    right.set_xlim(0, 1.1 * max(latency_s))
    right.legend(loc="lower right", markerscale=0.6)
    more, longer = throughput[at] / throughput[0], latency_s[at] / latency_s[0]
    title = f"{sizes[at]} requests at once: {more:.1f} times the throughput at {longer:.1f} times the latency ({model})"
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def _name_the_points(ax: Axes, sizes: Sequence[int], latency_s: Sequence[float], throughput: Sequence[float]) -> None:
    """The batch size beside each point, except where the point is too close to the one named before it."""
    named = -np.inf
    for size, x, y in zip(sizes, latency_s, throughput, strict=True):
        if y - named > 0.06 * max(throughput):
            ax.annotate(str(size), (x, y), (9, -5), textcoords="offset points")
            named = y


def largest_size_up_to(knee: float, sizes: Sequence[int]) -> int:
    """The place of the largest batch size that is not beyond the knee; the first if all are."""
    return max((place for place, size in enumerate(sizes) if size <= knee), default=0)


def padding_of_batches(orders: Mapping[str, Sequence[int]], batch_size: int) -> Figure:
    """The rectangles of static batches, cell by cell: tokens and pads, one panel for each order of the prompts.

    Args:
        orders: the prompts' lengths in tokens, in the order in which they are served, by the name of the order.
    """
    figure, axes = plt.subplots(1, len(orders), figsize=(10, 3.8), sharey=True, sharex=True, squeeze=False)
    shares = []
    for ax, (name, lengths) in zip(axes[0], orders.items(), strict=True):
        batches = [lengths[first : first + batch_size] for first in range(0, len(lengths), batch_size)]
        widths = np.concatenate([np.full(len(batch), max(batch)) for batch in batches])
        rows = [row + row // batch_size for row in range(len(lengths))]  # an empty line between two batches
        pads = widths - np.asarray(lengths)
        ax.barh(rows, pads, height=1, color=PALE, edgecolor=GREY, linewidth=0.4, hatch="////", label="pads")
        ax.barh(rows, lengths, left=pads, height=1, color=BLUE, edgecolor="white", linewidth=0.4, label="tokens")
        ax.set(xlabel="columns of the batch (tokens)", title=name)
        ax.grid(False)
        shares.append(f"{pads.sum() / widths.sum():.0%} of the cells {name}")
    axes[0, 0].set_ylabel("prompts, in batches")
    axes[0, 0].set_yticks([])
    axes[0, 0].invert_yaxis()
    axes[0, -1].legend(loc="upper right")
    figure.suptitle(f"Pads are {_listed(shares)}", x=0.01, ha="left")
    return figure


def waiting_and_served(begun_s: Mapping[int, np.ndarray], done_s: Mapping[int, np.ndarray]) -> Figure:
    """When each request's first forward began and when it was done, one panel for each batch size."""
    figure, axes = plt.subplots(1, len(begun_s), figsize=(10, 3.6), sharey=True, sharex=True, squeeze=False)
    for ax, (size, begun) in zip(axes[0], begun_s.items(), strict=True):
        done, numbers = done_s[size], range(1, len(begun) + 1)
        ax.barh(numbers, begun, color=PALE, edgecolor=GREY, linewidth=0.5, label="waiting")
        ax.barh(numbers, done - begun, left=begun, color=BLUE, label="being served")
        ax.axvline(done.mean(), color="black", linestyle=":", label="mean latency")
        ax.set(xlabel="time since sending (s)", title=f"batches of {size}")
    axes[0, 0].set(ylabel="request", yticks=range(1, len(begun) + 1))
    axes[0, 0].invert_yaxis()
    axes[0, -1].legend(loc="upper right")
    means = ", ".join(f"{done.mean():.2f} s in batches of {size}" for size, done in done_s.items())
    figure.suptitle(f"On average a request is done after {means}", x=0.01, ha="left")
    return figure
