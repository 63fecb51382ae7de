"""What only Lesson 1 draws: the positions a loop sends, attention row by row, the time of every token, sampling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from .charts import per_step_curves
from .style import BLUE, GREY, LINE_STYLES, MARKERS, ORANGE, PALE, PALETTE, PURPLE

EMPTY = "#b9b9b9"  # of the hatch where nothing was computed
NOTHING, AGAIN, FIRST_TIME = 0, 1, 2  # what a forward does with a position


def positions_sent(prompt_length: int, steps: int) -> Figure:
    """Which positions each forward works on, a row per forward: as the plain loop does it, and what is new.

    Args:
        prompt_length: tokens of the prompt. steps: forwards, each of which adds one token.
    """
    sent = positions_of_forwards(prompt_length, steps)
    new = np.where(sent == FIRST_TIME, FIRST_TIME, NOTHING)
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.9), sharey=True)
    for ax, cells, name in zip(axes, [sent, new], ["What the plain loop sends", "What is new"], strict=True):
        shades = ListedColormap([PALE, ORANGE, BLUE])
        ax.pcolormesh(cells, cmap=shades, vmin=NOTHING, vmax=FIRST_TIME, edgecolors="white", lw=0.5)
        ax.set(xlabel="position in the sequence", title=f"{name}: {(cells != NOTHING).sum()} positions")
        ax.set_xticks(np.arange(0, cells.shape[1], 4) + 0.5, np.arange(1, cells.shape[1] + 1, 4))
        ax.grid(False)
    axes[0].set_ylabel("forward pass")
    axes[0].set_yticks(np.arange(0, steps, 3) + 0.5, np.arange(1, steps + 1, 3))
    axes[0].invert_yaxis()
    kinds = {"worked on for the first time": BLUE, "worked on again": ORANGE, "not worked on": PALE}
    handles = [Patch(color=color, label=kind) for kind, color in kinds.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    title = f"The plain loop: {(sent == AGAIN).sum()} of {(sent != NOTHING).sum()} positions had been worked on before"
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def positions_of_forwards(prompt_length: int, steps: int) -> np.ndarray:
    """(steps, prompt_length + steps): what the plain loop does with each position in each forward.

    >>> positions_of_forwards(prompt_length=2, steps=2).tolist()
    [[2, 2, 0, 0], [1, 1, 2, 0]]
    """
    kinds = np.full((steps, prompt_length + steps), NOTHING)
    for step in range(steps):
        kinds[step, : prompt_length + step] = AGAIN
        kinds[step, prompt_length + step - 1] = FIRST_TIME
    kinds[0, :prompt_length] = FIRST_TIME
    return kinds


def attention_rows(words: Sequence[str], forwards: Sequence[np.ndarray]) -> Figure:
    """The attention weights that each forward computes, each at its place in the triangle of all tokens.

    Args:
        words: one per token. forwards: for each forward, weights (T, S+T): a row for each of its T new tokens.
    """
    size = len(words)
    figure, axes = plt.subplots(1, len(forwards), figsize=(11, 4.4), sharey=True)
    for number, (ax, weights) in enumerate(zip(axes, forwards, strict=True), 1):
        rows, columns = weights.shape
        cells = np.full((size, size), np.nan)  # rows that were not computed, and later tokens, stay empty
        cells[columns - rows : columns, :columns] = np.where(weights > 0, weights, np.nan)
        ax.patch.set(facecolor=PALE, edgecolor=EMPTY, hatch="////")  # to be told from a small weight in print
        mesh = ax.pcolormesh(cells, cmap="Blues", vmin=0, vmax=1, edgecolors="white", lw=0.5)
        noun = "token" if rows == 1 else "tokens"
        ax.set(title=f"Forward {number}: {rows} {noun} in", xlabel="token that is looked at", aspect="equal")
        ax.set_xticks(np.arange(size) + 0.5, words, rotation=60, ha="right")
        ax.grid(False)
    axes[0].set_ylabel("token that looks")
    axes[0].set_yticks(np.arange(size) + 0.5, words)
    axes[0].invert_yaxis()
    figure.colorbar(mesh, ax=axes, label="attention weight (1 = all attention)", shrink=0.8)
    first, *later = [len(weights) for weights in forwards]
    title = f"The first forward computes {first} rows of the triangle, each later one only {max(later)}"
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def time_of_every_token(
    measured: Mapping[str, Sequence[float]], expected: Mapping[str, Sequence[float]], title: str
) -> Axes:
    """Curves of the time that every token took, and thin lines for what was expected of each; all in seconds."""
    ax = plt.subplots(figsize=(8, 4.2))[1]
    per_step_curves(measured, ax)
    for (label, seconds), color, style in zip(expected.items(), (GREY, PURPLE), (":", "-."), strict=False):
        steps = np.arange(1, len(seconds) + 1)
        ax.plot(steps, np.asarray(seconds) * 1e3, color=color, ls=style, lw=1.8, label=label)
    highest = max(max(seconds) for seconds in expected.values()) * 1e3
    ax.set_ylim(top=1.35 * max(ax.get_ylim()[1], highest))
    ax.set_title(title)
    ax.legend(loc="upper left", ncols=2)
    return ax


def next_token_chances(
    words: Sequence[str],
    temperatures: Mapping[float, Sequence[float]],
    top_k: tuple[int, Sequence[float]],
    top_p: tuple[float, Sequence[float]],
) -> Figure:
    """The chances of the likeliest next tokens by the way of choosing; each sequence has one chance per word.

    Args:
        temperatures: the chances at each temperature; that of 1 is what the model says itself.
        top_k, top_p: k or p, and the chances.
    """
    figure, axes = plt.subplots(1, 3, figsize=(11, 4.4), sharey=True)
    places = np.arange(len(words))
    for (temperature, chances), marker, style, color in zip(
        temperatures.items(), MARKERS, LINE_STYLES, PALETTE, strict=False
    ):
        axes[0].plot(places, chances, marker=marker, ls=style, color=color, label=f"temperature {temperature}")
    for ax, (name, (setting, chances)) in zip(axes[1:], {"k": top_k, "p": top_p}.items(), strict=True):
        ax.bar(places, chances, color=BLUE, label=f"top-{name}, {name} = {setting}")
        ax.bar(places, temperatures[1.0], width=0.4, color=ORANGE, label="unchanged")
        ax.set_title(f"Top-{name} keeps {np.count_nonzero(chances)} of these {len(words)} tokens")
    rest = 1 - sum(temperatures[max(temperatures)])
    axes[0].set_title(f"Temperature {max(temperatures):g} gives {rest:.0%} to tokens not shown")
    for ax in axes:
        ax.set_xticks(places, words, rotation=60, ha="right")
        ax.set_xlabel(f"the {len(words)} likeliest next tokens")
        ax.legend()
    axes[0].set_ylabel("probability")
    return figure
