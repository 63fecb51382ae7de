"""What only Lesson 6 draws: what many adapters cost a layer, whose rows a step holds, and who waits for an adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

from .charts import grouped_bars
from .style import GREY, LINE_STYLES, MARKERS, PALE, PALETTE


def way_times(adapters: Sequence[int], times: Mapping[str, Sequence[float]], groups: str, rows: int) -> Axes:
    """The time of one layer (ms) over how many different adapters its rows have, a line for each way to compute it.

    Args:
        adapters: the numbers of different adapters, ascending.
        times: the time for each of them, under the name of the way.
        groups: the way that the title is about: up to how many adapters it is always the fastest.
        rows: in the batch.
    """
    ax = plt.subplots()[1]
    for (label, ms), style, marker, color in zip(times.items(), LINE_STYLES, MARKERS, PALETTE, strict=False):
        ax.semilogx(adapters, ms, linestyle=style, marker=marker, color=color, label=label)
    ax.set_xticks(adapters, [str(value) for value in adapters])
    ax.xaxis.set_minor_locator(plt.NullLocator())
    ax.set_ylim(bottom=0)
    ax.set(xlabel=f"different adapters among {rows} rows", ylabel="time of one layer (ms)")
    others = [ms for label, ms in times.items() if label != groups]
    are_fastest = [all(own < ms[index] for ms in others) for index, own in enumerate(times[groups])]
    up_to = [n for n, _ in takewhile(lambda pair: pair[1], zip(adapters, are_fastest, strict=True))]
    if up_to:
        ending = f"are the fastest way up to {up_to[-1]} adapter{'s' if up_to[-1] > 1 else ''}"
    else:
        ending = "are not the fastest way for few adapters" if any(are_fastest) else "are nowhere the fastest way"
    ax.set_title(f"Of {rows} rows the {groups} {ending}")
    ax.legend()
    return ax


def rows_over_steps(steps: Sequence[Mapping[int, str]], names: Sequence[str]) -> Axes:
    """Whose adapter every row of every step has, one colour for each name. A request keeps its row until it ends.

    Args:
        steps: for each forward the name of the adapter of every request that it read, by the request's number.
        names: all names, in the order of the legend; five at most.
    """
    most = max(len(rows) for rows in steps)
    ax = plt.subplots(figsize=(9, 0.32 * most + 1.7))[1]
    grid = np.zeros((most, len(steps)), dtype=int)
    rows: list[int | None] = [None] * most  # the request that has each row
    for step, owners in enumerate(steps):
        rows = [request if request in owners else None for request in rows]
        for request in sorted(owners.keys() - set(rows)):
            rows[rows.index(None)] = request
        grid[:, step] = [0 if request is None else 1 + names.index(owners[request]) for request in rows]
    colors = (PALE, *PALETTE, GREY)[: len(names) + 1]
    ax.pcolormesh(
        grid, cmap=ListedColormap(colors), vmin=-0.5, vmax=len(names) + 0.5, edgecolors="white", linewidth=0.5
    )
    ax.set_yticks(np.arange(most) + 0.5, [str(row) for row in range(most)])
    ax.invert_yaxis()
    ax.grid(False)
    ax.set(xlabel="forward", ylabel="row")
    mixed = sum(len(set(owners.values())) > 1 for owners in steps)
    ax.set_title(f"{mixed} of {len(steps)} forwards read rows of different adapters")
    handles = [Patch(color=color, label=name) for color, name in zip(colors[1:], names, strict=True)]
    ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(0, -0.3), ncols=len(names))
    return ax


def waits(first_tokens: Mapping[str, Mapping[str, float]]) -> Axes:
    """The forward that brought the first token, averaged over a voice's requests: bars by voice, for each policy.

    Args:
        first_tokens: for each policy the mean number of the forward by voice, all policies with the same voices.
    """
    ax = grouped_bars(first_tokens)
    ax.set(xlabel="voice", ylabel="forward of the first token\n(mean over the voice's requests)")
    longest = {policy: max(means.values()) for policy, means in first_tokens.items()}
    worst, best = max(longest, key=longest.get), min(longest, key=longest.get)
    ax.set_title(f"The longest mean wait: {longest[worst]:g} forwards ({worst}), {longest[best]:g} ({best})")
    ax.set_ylim(top=1.45 * longest[worst])
    ax.legend(loc="upper left")
    return ax
