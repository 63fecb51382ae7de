"""What only Lesson 4 draws: the numbers of a format, codes and their errors, bits and damage, changed answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .style import BLUE, GREY, LINE_STYLES, MARKERS, ORANGE, PALETTE


def numbers_of_formats(rows: Mapping[str, Sequence[float]]) -> Axes:
    """A line for every number that a format can hold, one row per format."""
    ax = plt.subplots(figsize=(8, 0.5 * len(rows) + 1.1))[1]
    places = list(range(len(rows)))
    colors = [PALETTE[place % len(PALETTE)] for place in places]
    ax.eventplot(list(rows.values()), lineoffsets=places, linelengths=0.7, linewidths=0.9, colors=colors)
    ax.set_yticks(places, list(rows))
    ax.invert_yaxis()
    ax.set(xlabel="value (each line is one number that the format can hold)")
    ax.set_title("A float's numbers crowd around zero; an integer's are evenly spaced")
    ax.grid(False)
    return ax


def error_of_rounding(error_steps: np.ndarray) -> Axes:
    """The errors of many values, in steps, beside the prediction that they spread evenly over one step."""
    ax = plt.subplots(figsize=(8, 3))[1]
    ax.hist(error_steps.ravel(), bins=np.linspace(-0.7, 0.7, 57), density=True, color=BLUE, label="measured")
    corners = [-0.5, -0.5, 0.5, 0.5], [0, 1, 1, 0]
    ax.plot(*corners, color="black", linestyle="--", label="predicted: spread evenly")
    ax.set(xlabel="error (steps)", ylabel="density of weights (1/step)", ylim=(0, 1.5))
    rms = np.sqrt(np.square(error_steps).mean())
    ax.set_title(f"No weight moves by more than {np.abs(error_steps).max():.2f} steps, and the RMS is {rms:.3f}")
    ax.legend(loc="upper right", ncols=2)
    return ax


def codes_in_use(counts: Sequence[int], zero_point: int, near: int = 32) -> Axes:
    """How many weights of a matrix have each code, with one scale for all of them.

    Args:
        counts: for each code from 0 on, the number of weights.
        near: the title says which share of the weights is within so many levels of zero.
    """
    weights = np.asarray(counts, dtype=float)
    ax = plt.subplots(figsize=(8, 3.2))[1]
    ax.bar(np.arange(len(weights)), weights, width=1.0, color=BLUE)
    ax.axvline(zero_point, color=ORANGE, linestyle="--", label="zero point (the code of 0.0)")
    ax.set(xlabel="code", ylabel="number of weights (log scale)", yscale="log")
    share = weights[max(0, zero_point - near) : zero_point + near + 1].sum() / weights.sum()
    ax.set_title(f"Outliers claim the range: {share:.1%} of the weights crowd within {near} levels of zero")
    ax.legend(loc="upper right")
    return ax


def bits_and_damage(
    curves: Mapping[str, Sequence[tuple[float, float, float, float]]], fp32_perplexity: float
) -> Figure:
    """Perplexity and KL divergence over the bits that a weight takes, one curve for each way to share scales.

    Args:
        curves: label -> points (bits per weight, perplexity, KL, predicted KL), most bits first.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8))
    for (label, points), color, marker, style in zip(curves.items(), PALETTE, MARKERS, LINE_STYLES, strict=False):
        bits, perplexity, kl, predicted = np.array(points).T
        left.plot(bits, perplexity, color=color, marker=marker, linestyle=style, label=label)
        right.plot(bits, kl, color=color, marker=marker, linestyle=style, label=label)
        right.plot(bits, predicted, color=color, linestyle=":", linewidth=1.5)
    left.axhline(fp32_perplexity, color="black", linewidth=0.8, label="fp32")
    right.plot([], [], color=GREY, linestyle=":", label="dotted: predicted from 8 bits")
    left.set(yscale="log", ylabel="perplexity (log scale)")
    right.set(yscale="log", ylabel="KL divergence from fp32 (nats, log scale)")
    left.set_yticks([1.5, 3, 10, 30, 100], ["1.5", "3", "10", "30", "100"])
    left.minorticks_off()
    for ax in (left, right):
        ax.set_xlabel("bits per weight, scales included")
        ax.legend()
    highest = max(points[0][1] for points in curves.values())
    lowest = {label: points[-1][1] for label, points in curves.items()}
    worst, best = max(lowest, key=lowest.__getitem__), min(lowest, key=lowest.__getitem__)
    fig.suptitle(
        f"With most bits the perplexity is at most {highest:.2f}; "
        f"with fewest it is {lowest[worst]:.3g} ({worst}) to {lowest[best]:.3g} ({best})",
        x=0.01,
        ha="left",
    )
    return fig


def parts_of_memory(parts: Sequence[str], megabytes: Mapping[str, Sequence[float]]) -> Axes:
    """A bar of stacked parts for every format, in MB, with the sum at its end."""
    ax = plt.subplots(figsize=(8, 3))[1]
    labels, columns = list(megabytes), np.array(list(megabytes.values())).T
    left = np.zeros(len(labels))
    hatches = ("", "xx", "//", "..")
    for place, (part, column) in enumerate(zip(parts, columns, strict=True)):
        look = {"color": PALETTE[place], "hatch": hatches[place], "edgecolor": "white"}
        ax.barh(labels, column, left=left, label=part, **look)
        left = left + column
    for row, total in enumerate(left):
        ax.text(total, row, f" {total:.0f} MB", va="center")
    ax.invert_yaxis()
    ax.set(xlabel="memory (MB)", xlim=(0, 1.15 * left.max()))
    ax.grid(False, axis="y")
    ax.set_title(f"From {left.max():.0f} MB down to {left.min():.0f}: what stays in fp32 limits the saving")
    ax.legend(loc="upper left", bbox_to_anchor=(0, -0.2), ncols=2)
    return ax


def predicted_steps(
    reading_ms: Mapping[str, float], fixed_ms: Mapping[str, float], measured_ms: Mapping[str, float], beside: str
) -> Axes:
    """For every format two bars: the two parts of the predicted time of a decode step, and the measured time.

    Args:
        beside: the format with which the title compares the fastest one.
    """
    ax = plt.subplots(figsize=(8, 0.7 * len(measured_ms) + 1.6))[1]
    places = np.arange(len(measured_ms))
    reading, fixed, measured = (
        np.array([times[name] for name in measured_ms]) for times in (reading_ms, fixed_ms, measured_ms)
    )
    ax.barh(places - 0.2, reading, height=0.36, color=BLUE, label="predicted: reading the weights")
    ax.barh(places - 0.2, fixed, left=reading, height=0.36, color=GREY, hatch="//", label="predicted: the fixed part")
    ax.barh(places + 0.2, measured, height=0.36, color=ORANGE, label="measured")
    for place, predicted, value in zip(places, reading + fixed, measured, strict=True):
        ax.text(predicted, place - 0.2, f" {predicted:.1f} ms", va="center")
        ax.text(value, place + 0.2, f" {value:.1f} ms", va="center")
    ax.set_yticks(places, list(measured_ms))
    ax.invert_yaxis()
    ax.set(
        xlabel="time of a decode step of one row (ms)", xlim=(0, 1.15 * max(measured.max(), (reading + fixed).max()))
    )
    ax.grid(False, axis="y")
    fastest = min(measured_ms, key=measured_ms.__getitem__)
    ratio, of_reading = (times[fastest] / times[beside] for times in (measured_ms, reading_ms))
    ax.set_title(f"“{fastest}” reads {of_reading:.2f} of the bytes of {beside} and takes {ratio:.2f} of its time")
    ax.legend(loc="upper left", bbox_to_anchor=(0, -0.15), ncols=3)
    return ax


def answers_still_unchanged(
    first_changes: Mapping[str, np.ndarray], predicted: Mapping[str, Sequence[float]], tokens: int
) -> Axes:
    """The share of answers in which no token has changed yet, over the tokens generated.

    Args:
        first_changes: label -> for each answer the place of its first changed token, infinity if there is none.
        predicted: label -> the predicted share after 0, 1, ... `tokens` tokens, drawn as a thin line.
    """
    ax = plt.subplots(figsize=(8, 3.8))[1]
    n = np.arange(tokens + 1)
    for (label, places), color, style in zip(first_changes.items(), PALETTE, LINE_STYLES, strict=False):
        share = [100 * (np.asarray(places) >= count).mean() for count in n]
        ax.step(n, share, where="post", color=color, linestyle=style, linewidth=2, label=label)
        ax.plot(n, 100 * np.asarray(predicted[label]), color=color, linestyle=style, linewidth=0.8)
    ax.plot([], [], color=GREY, linewidth=0.8, label="predicted (thin lines)")
    answers = len(next(iter(first_changes.values())))
    ax.set(xlabel="tokens generated", ylabel=f"answers unchanged so far (% of {answers})", ylim=(0, 105))
    ends = [100 * np.isinf(places).mean() for places in first_changes.values()]
    ax.set_title(
        f"Every token is a small risk: in the end {min(ends):.0f} to {max(ends):.0f} % of the answers are unchanged"
    )
    ax.legend(loc="lower left")
    return ax
