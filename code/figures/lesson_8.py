"""What only Lesson 8 draws: whose blocks those of the cache are, what a budget costs, what forwards read, who waits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

from .charts import grouped_bars
from .style import BLUE, ORANGE, PALE, PALETTE, PURPLE


def _users(tables: Mapping[str, Sequence[int]]) -> dict[int, list[str]]:
    """Who has each block in the table; blocks that nobody has are left out."""
    users: dict[int, list[str]] = {}
    for name, table in tables.items():
        for block in table:
            users.setdefault(block, []).append(name)
    return users


def cache_blocks(tables: Mapping[str, Sequence[int]], count: int) -> Axes:
    """The blocks of a paged cache in the order of their numbers, coloured by the request in whose table they are.

    Of up to 64 blocks, those of one request have its initial and their place in its table written on them.

    Args:
        tables: the block table of each request, by its name; three requests at most.
        count: blocks of the cache.
    """
    columns = 16 if count <= 64 else 32
    lines, users = -(-count // columns), _users(tables)
    ax = plt.subplots(figsize=(9, 0.36 * lines + 1.5))[1]
    grid = np.full(lines * columns, np.nan)
    grid[:count] = 0
    for block, names in users.items():
        grid[block] = 4 if len(names) > 1 else 1 + list(tables).index(names[0])
        if count <= 64 and len(names) == 1:
            label = f"{names[0][0]}{list(tables[names[0]]).index(block)}"
            spot = (block % columns + 0.5, block // columns + 0.5)
            ax.text(*spot, label, ha="center", va="center", color="white")
    colors, grid = ListedColormap([PALE, *PALETTE]), grid.reshape(lines, columns)
    ax.pcolormesh(grid, cmap=colors, vmin=-0.5, vmax=4.5, edgecolors="white", linewidth=1)
    ax.set_yticks(np.arange(lines) + 0.5, [f"from {line * columns}" for line in range(lines)])
    ax.invert_yaxis()
    ax.grid(False)
    ax.set(xlabel="blocks of the cache, by number", ylabel="block", xticks=[])
    shared = sum(len(names) > 1 for names in users.values())
    words = f"{len(users)} of {count} blocks are in use"
    ax.set_title(f"{words}, {shared} of them by several requests" if shared else words)
    labels = dict(zip(tables, PALETTE, strict=False)) | ({"several": PURPLE} if shared else {}) | {"free": PALE}
    handles = [Patch(color=color, label=label) for label, color in labels.items()]
    ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(0, -0.25), ncols=len(handles))
    return ax


def gap_and_wait(step_tokens: Sequence[int], gaps_ms: Sequence[float], firsts_ms: Sequence[float]) -> Axes:
    """The longest gap of running requests and the TTFT of a newcomer with a long prompt (ms), for each budget.

    Args:
        step_tokens: the budgets, the largest first.
    """
    ax = plt.subplots()[1]
    places = np.arange(len(step_tokens))
    for shift, values, color, label in (
        (-0.2, gaps_ms, BLUE, "longest gap of the running requests"),
        (0.2, firsts_ms, ORANGE, "first token of the newcomer"),
    ):
        ax.bar(places + shift, values, 0.4, color=color, edgecolor="white", label=label)
        for place, value in zip(places, values, strict=True):
            ax.text(place + shift, value, f"{value:.0f}", ha="center", va="bottom")
    ax.set_xticks(places, [str(tokens) for tokens in step_tokens])
    ax.grid(False, axis="x")
    ax.set(xlabel="budget of a forward, step_tokens", ylabel="time (ms)")
    ax.set_ylim(top=1.35 * max(*gaps_ms, *firsts_ms))
    gap, wait = gaps_ms[0] / gaps_ms[-1], firsts_ms[-1] / firsts_ms[0]
    ax.set_title(
        f"Budget {step_tokens[-1]}, not {step_tokens[0]}: "
        f"the gap is {gap:.1f} times shorter, the wait {wait:.1f} times as long"
    )
    ax.legend(loc="upper left")
    return ax


def rows_of_forwards(steps: Sequence[Mapping[int, int]], names: Sequence[str]) -> Axes:
    """What each forward reads of each request: nothing, one token, or several.

    Args:
        steps: for each forward the tokens that it reads, by the request's number.
        names: of the requests, by number.
    """
    ax = plt.subplots(figsize=(9, 0.4 * len(names) + 1.6))[1]
    grid = np.zeros((len(names), len(steps)), dtype=int)
    for step, rows in enumerate(steps):
        for number, tokens in rows.items():
            grid[number, step] = 1 if tokens == 1 else 2
    ax.pcolormesh(grid, cmap=ListedColormap([PALE, BLUE, ORANGE]), vmin=-0.5, vmax=2.5, edgecolors="white")
    ax.set_yticks(np.arange(len(names)) + 0.5, list(names))
    ax.invert_yaxis()
    ax.grid(False)
    ax.set(xlabel="forward", ylabel="request")
    words = ((BLUE, "one token"), (ORANGE, "several tokens"), (PALE, "waits, or has ended"))
    handles = [Patch(color=color, label=label) for color, label in words]
    ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(0, -0.3), ncols=3)
    return ax


def first_tokens(means: Mapping[str, Mapping[str, float]]) -> Axes:
    """The forward that brings the first token, averaged over requests of one kind: bars by kind, for each order.

    Args:
        means: for each order of service the mean by kind of request, all orders with the same kinds.
    """
    ax = grouped_bars(means, ".1f")
    kinds = list(next(iter(means.values())))
    ax.set_xticklabels([f"requests for {kind}" for kind in kinds])
    ax.set(ylabel="forward of the first token (mean)")
    one, other = list(means)[:2]
    ax.set_title(
        f"Requests for {kinds[0]} wait until forward {means[other][kinds[0]]:.1f} {other}, "
        f"{means[one][kinds[0]]:.1f} {one}"
    )
    ax.set_ylim(top=1.3 * max(max(of_kind.values()) for of_kind in means.values()))
    ax.legend(loc="upper right")
    return ax
