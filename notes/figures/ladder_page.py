"""Drawings of the page on the ladder: other systems and servers beside ours, and the predictions of all lessons."""

from __future__ import annotations

import sys
from pathlib import Path

from canvas import MID_GREY, SMALL, SOLID_BLUE, Sheet
from figures import GREY, LINE_STYLES, MARKERS, PALETTE, predicted_and_measured
from lesson_0 import conditions, read_results

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from report_load import by_system, knee
from scoreboards import saved_scoreboards


def beside_ours(ratio: float) -> str:
    """A time as a multiple of ours, in words; a tenth more or less is within what the rounds differ by."""
    return "is level with us" if 0.9 < ratio < 1.1 else f"takes {ratio:.2f} of our time"


def peers() -> Sheet:
    """What benchmarks/peers.py has measured: the same workload on other libraries."""
    result = read_results("peers-cpu.json")
    systems = sorted(result["systems"], key=lambda system: -system["median_s"])
    times_ours = {system["key"]: system["times_ours"] for system in systems}
    like = {system["key"]: system["times_ours"].get(system["like"]) for system in systems}
    sheet = Sheet(
        154 + 26 * len(systems),
        f"In fp32, vLLM {beside_ours(like['vllm-fp32'])}, OpenVINO {beside_ours(like['openvino-fp32'])}",
    )
    packed = [times_ours[key]["ours-packed"] for key in ("transformers-manager", "transformers-manager-open")]
    sheet.note(
        20,
        50,
        f"The manager packs no weights. Our packed model is {packed[0]:.1f} times as fast as it is with 8 slots, and "
        f"{packed[1]:.1f} times with any slots.",
    )
    left, room, top = 330, 300, 76
    slowest = systems[0]["median_s"]
    for index, system in enumerate(systems):
        y = top + 26 * index
        sheet.text(left - 72, y + 9, system["label"], ha="right")
        sheet.note(left - 62, y + 9, system["precision"])
        sheet.note(left - 26, y + 9, {"static": "s", "continuous": "c"}[system["batching"]])
        fill = SOLID_BLUE if system["library"] == "ours" else MID_GREY
        length = room * system["median_s"] / slowest
        sheet.cells([(left, y)], length, 18, fill)
        beside = f"   {like[system['key']]:.2f} times ours" if like[system["key"]] else ""
        sheet.text(left + length + 8, y + 9, f"{system['median_s']:.1f} s{beside}", size=SMALL)
    bottom = top + 26 * len(systems)
    sheet.key(
        20,
        bottom + 12,
        [(SOLID_BLUE, "ours", 70), (MID_GREY, "others; times ours: as long as ours that works alike", 330)],
    )
    sheet.note(450, bottom + 12, "s: static batches    c: continuous batching")
    sheet.note(
        20,
        bottom + 34,
        f"{result['requests']} requests, {result['tokens']} tokens, {conditions(result)}; "
        f"median of {result['rounds']} rounds, systems in turn",
    )
    sheet.note(20, bottom + 56, "times ours: median of the ratios within each round")
    return sheet


def predictions() -> Sheet:
    """Every prediction of the lessons beside its measurement, as the committed notebooks show them."""
    boards = saved_scoreboards()
    rows = [row for board in boards for row in board.rows]
    open_rows = [row for row in rows if not row.exact]
    hits = sum(not row.missed for row in open_rows)
    sheet = Sheet(590, f"{hits} of {len(open_rows)} predicted times and ratios come within a factor of 1.5")
    axes = predicted_and_measured(*boards, ax=sheet.plot(86, 60, 690, 460))
    axes.set_title("")
    ends = axes.get_xlim()
    powers = [10.0**power for power in range(-9, 10) if ends[0] <= 10.0**power <= ends[1]]  # none beyond the frame
    axes.set(xticks=powers, yticks=powers)
    return sheet


def load() -> Sheet:
    """What benchmarks/load.py has measured: requests that arrive at random, at six rates."""
    result = read_results("load-cpu.json")
    systems, promise = by_system(result), result["promise"]
    upto = {name: f"up to {knee(rows):g} per second" if knee(rows) else "at no rate" for name, rows in systems.items()}
    sheet = Sheet(
        420,
        f"Nine of ten answers in time: static batches {upto['static batches']}, the engine {upto['this server']}",
    )
    panels = [
        (70, "answers in time (%)", lambda row: 100 * row["in_time"] / row["asked"]),
        (470, "TTFT that nine of ten answers keep (s)", lambda row: row["ttft_s"]["p90"]),
    ]
    for left, words, value in panels:
        axes = sheet.plot(left, 84, 300, 220)
        for (name, rows), color, style, marker in zip(systems.items(), PALETTE, LINE_STYLES, MARKERS, strict=False):
            rates = [row["rate_per_s"] for row in rows]
            axes.plot(rates, [value(row) for row in rows], color=color, linestyle=style, marker=marker, label=name)
        axes.set(xlabel="requests that arrive per second", xticks=result["sizes"]["rates"])
        sheet.text(left, 66, words)
    sheet.figure.axes[1].set_ylim(-3, 105)
    sheet.figure.axes[1].axhline(90, color=GREY, linewidth=1)
    sheet.figure.axes[1].legend(fontsize=9, frameon=False, loc="center right")
    axes.set_yscale("log")
    axes.set_yticks([0.1, 1, 10], ["0.1", "1", "10"])
    axes.minorticks_off()
    axes.axhline(promise["ttft_s"], color=GREY, linewidth=1)
    sheet.note(20, 356, "Thin lines: nine of ten answers (left), and the promised TTFT (right).")
    sheet.note(
        20,
        376,
        f"In time: TTFT of at most {promise['ttft_s'] * 1e3:.0f} ms and TPOT of at most "
        f"{promise['tpot_s'] * 1e3:.0f} ms. {result['sizes']['arrivals']['requests']} requests at each rate, one run.",
    )
    sheet.note(20, 396, f"GPT-2's size, random weights, fp32, {result['machine']['cpu threads']} threads.")
    return sheet
