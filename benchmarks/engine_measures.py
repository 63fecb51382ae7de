"""The engine's measurements: what was aimed at, what was measured, and where the time of a step goes.

    python benchmarks/engine_measures.py                 measure, write benchmarks/results/engine-cpu.json, print it all
    python benchmarks/engine_measures.py --only chunks   one part of it, to build/
    python benchmarks/engine_measures.py --smoke         all parts on tiny models, in seconds; the numbers mean nothing

    speed      the course's workload beside `run_continuous`, at GPT-2's size and on the storyteller
    chunks     a prompt of 1,500 tokens arrives among decoding rows
    prefixes   16 requests over one prefix of 1,000 tokens, and 16 with their own
    lora       eight rows of four adapters beside eight rows without
    overheads  scheduling, blocks and sampling beside the forward, with 10 and with 10,000 waiting
    slots      keys and values in pages beside contiguous slots
    pieces     a decode step taken apart

Whatever is compared takes turns within one run, so that a machine that becomes slower slows all of it alike.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "code"), str(ROOT / "models" / "training")]

from tqdm.auto import tqdm

import engine_chunks
import engine_lora
import engine_overheads
import engine_pieces
import engine_prefixes
import engine_slots
import engine_speed
from engine_sizes import FULL, SMOKE, Outcome, Sizes
from measure import machine
from results_file import BUILD, RESULTS, check_rounds, where_to_write, write_json

PARTS = {
    "speed": engine_speed.measure,
    "chunks": engine_chunks.measure,
    "prefixes": engine_prefixes.measure,
    "lora": engine_lora.measure,
    "overheads": engine_overheads.measure,
    "slots": engine_slots.measure,
    "pieces": engine_pieces.measure,
}


def measure_parts(names: Sequence[str], sizes: Sizes) -> dict[str, Outcome]:
    """One part after the other."""
    outcomes = {}
    with tqdm(names, desc="engine") as bar:
        for name in bar:
            bar.set_postfix_str(name)
            outcomes[name] = PARTS[name](sizes)
    return outcomes


def result_of(outcomes: dict[str, Outcome], sizes: Sizes) -> dict[str, Any]:
    """What the JSON file holds."""
    return {
        "machine": machine(),
        "sizes": sizes.numbers(),
        "targets": [target.row() for outcome in outcomes.values() for target in outcome.targets],
        "parts": {name: outcome.measured for name, outcome in outcomes.items()},
    }


def shown(outcomes: dict[str, Outcome]) -> str:
    """All tables, and then what was aimed at."""
    lines = []
    for name, outcome in outcomes.items():
        lines += [name, *(f"  {line}" for line in outcome.lines), ""]
    for target in (target for outcome in outcomes.values() for target in outcome.targets):
        verdict = "met" if target.met else "missed"
        lines.append(f"{verdict:7}{target.what}: {target.measured:.3g}, {target.bound} {target.target:g}")
    return "\n".join(lines)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; `out` is where the result goes."""
    parser = argparse.ArgumentParser(description="Measure the engine.")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), metavar="PART", help=f"some of: {', '.join(PARTS)}")
    parser.add_argument(
        "--repeats",
        type=int,
        default=FULL.repeats,
        help=f"rounds (default {FULL.repeats}; of long prompts at most {FULL.long_repeats})",
    )
    parser.add_argument("--smoke", action="store_true", help="tiny models, one round: only to see that it runs")
    parser.add_argument(
        "--out",
        type=Path,
        help="the JSON file (default: benchmarks/results/engine-cpu.json; in build/ with --smoke or --only)",
    )
    options = parser.parse_args(arguments)
    name = "engine-smoke-cpu.json" if options.smoke else "engine-cpu.json"
    options.out = options.out or (BUILD if options.smoke or options.only else RESULTS) / name
    check_rounds(parser, options.out, 1 if options.smoke else options.repeats)
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit status."""
    options = parse_arguments(arguments)
    repeats, long_repeats = options.repeats, min(options.repeats, FULL.long_repeats)
    sizes = SMOKE if options.smoke else replace(FULL, repeats=repeats, long_repeats=long_repeats)
    outcomes = measure_parts(options.only or list(PARTS), sizes)
    print(shown(outcomes))
    left_out = [name for name in PARTS if name not in outcomes]
    write_json(result_of(outcomes, sizes), where_to_write(options.out, left_out))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\nInterrupted: nothing was written.")
