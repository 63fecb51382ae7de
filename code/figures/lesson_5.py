"""What only Lesson 5 draws: how small adapters are, how they learn, how strong they are, and what many of them cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from .charts import running_median
from .style import GREY, LINE_STYLES, MARKERS, PALETTE


def adapter_share(layers: Mapping[str, tuple[int, int]], rank: int) -> Axes:
    """The parameters of an adapter in percent of its layer's, over the rank, both logarithmic.

    Args:
        layers: the numbers of inputs and outputs, (in, out), of each layer under its name.
        rank: a dotted line marks this rank, and the title says how small an adapter of this rank is.
    """
    ax = plt.subplots()[1]
    ranks = 2 ** np.arange(11)
    for (name, (n_in, n_out)), style, color in zip(layers.items(), LINE_STYLES, PALETTE, strict=False):
        share = 100 * ranks * (n_in + n_out) / (n_in * n_out)
        ax.loglog(ranks, share, linestyle=style, color=color, label=f"{name} ({n_in:,} to {n_out:,})")
    ax.axhline(100, color=GREY, linewidth=1)
    ax.text(1, 112, "as large as the layer itself", color=GREY)
    ax.axvline(rank, color=GREY, linewidth=1, linestyle=":")
    ax.set_xticks(ranks, [str(value) for value in ranks])
    ax.set_yticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
    ax.minorticks_off()
    ax.set(xlabel="rank r", ylabel="parameters of the adapter\n(% of the layer's)")
    shares = [rank * (n_in + n_out) / (n_in * n_out) for n_in, n_out in layers.values()]
    ax.set_title(f"At rank {rank} an adapter has {min(shares):.1%} to {max(shares):.1%} of its layer's parameters")
    ax.legend(loc="lower right")
    return ax


def training_loss(losses: Mapping[str, Sequence[float]]) -> Axes:
    """The loss of every training step (nats per token), faint, and its running median over seven steps, bold."""
    ax = plt.subplots()[1]
    for (label, values), style, color in zip(losses.items(), LINE_STYLES, PALETTE, strict=False):
        steps = range(1, len(values) + 1)
        ax.plot(steps, values, alpha=0.3, color=color)
        ax.plot(steps, running_median(values, 7), linestyle=style, color=color, linewidth=2, label=label)
    ax.set(xlabel="training step (8 stories of 64 tokens each)", ylabel="training loss (nats per token)")
    ax.set_ylim(bottom=0)
    label, values = next(iter(losses.items()))
    last = np.median(values[-7:])
    ax.set_title(f"The {label} begins at {values[0]:.1f} nats per token; the median of its last 7 steps is {last:.1f}")
    ax.legend(title="bold: running median")
    return ax


def strength_dial(shares: Sequence[float], voice: Sequence[float], plain: Sequence[float]) -> Axes:
    """Held-out loss on text in the adapter's voice and on plain text, over the strength of the adapter.

    Args:
        shares: the strengths, as shares of that in training, ascending from 0 (no adapter) to 1, with 0.5 among them.
        voice, plain: the loss on either kind of text at each strength (nats per token).
    """
    ax = plt.subplots()[1]
    percent = 100 * np.asarray(shares)
    for label, values, style, marker, color in zip(
        ("text in the adapter's voice", "plain text"), (voice, plain), LINE_STYLES, MARKERS, PALETTE, strict=False
    ):
        ax.plot(percent, values, linestyle=style, marker=marker, color=color, label=label)
    ax.set(xlabel="strength of the adapter (% of that in training)", ylabel="held-out loss\n(nats per token)")
    ax.set_ylim(bottom=0)
    half = list(shares).index(0.5)
    kept = (voice[0] - voice[half]) / (voice[0] - voice[-1])
    paid = (plain[half] - plain[0]) / (plain[-1] - plain[0])
    ax.set_title(
        f"Half the strength keeps {kept:.0%} of the gain in the voice, at {paid:.0%} of the price in plain text"
    )
    ax.legend()
    return ax


def layer_times(sizes: Sequence[int], times: Mapping[str, Sequence[float]], one: str, other: str) -> Axes:
    """The time of one layer (ms) over the batch size, both logarithmic, a line for each way to compute it.

    The title compares two of the ways, `one` and `other`, at the largest size.
    """
    ax = plt.subplots()[1]
    for (label, ms), style, marker, color in zip(times.items(), LINE_STYLES, MARKERS, PALETTE, strict=False):
        ax.loglog(sizes, ms, linestyle=style, marker=marker, color=color, label=label)
    ax.set_xticks(sizes, [str(size) for size in sizes])
    ax.xaxis.set_minor_locator(plt.NullLocator())
    ax.yaxis.set_major_formatter("{x:g}")
    ax.set(xlabel="batch size (rows, each with an adapter of its own)", ylabel="time of one layer (ms)")
    fast, slow = sorted((one, other), key=lambda label: times[label][-1])
    ratio = times[slow][-1] / times[fast][-1]
    ax.set_title(f"With {sizes[-1]} rows the {slow} takes {ratio:.1f} times as long as the {fast}")
    ax.legend()
    return ax
