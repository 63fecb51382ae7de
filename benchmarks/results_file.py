"""Where the benchmarks write, and what must not be written over: benchmarks/results/ holds whole runs only."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"
BUILD = ROOT / "build"
FEWEST_ROUNDS = 3  # of a run whose numbers README and notes show


def write_json(result: dict[str, Any], path: Path) -> None:
    """Write the file all at once: whoever reads it finds the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8", newline="\n")
    unfinished.replace(path)


def check_device(parser: argparse.ArgumentParser, device: str) -> None:
    """Say at once that there is no GPU."""
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("--device is cuda, but PyTorch finds no CUDA GPU here; leave it out to measure on the CPU")


def check_rounds(parser: argparse.ArgumentParser, out: Path, repeats: int) -> None:
    """Refuse, before anything is measured, a run without rounds, or of too few to replace published numbers."""
    if repeats < 1:
        parser.error(f"--repeats is {repeats}; it must be 1 or more")
    if not is_published(out):
        return
    cap = os.environ.get("COURSE_REPEATS")
    if cap:
        parser.error(
            f"COURSE_REPEATS is set to {cap}, which leaves out rounds, and the result would replace {shown(out)}, "
            "which the notes quote; unset COURSE_REPEATS, or name another file with --out"
        )
    if repeats < FEWEST_ROUNDS:
        parser.error(
            f"--repeats is {repeats}, and {shown(out)}, which the notes quote, takes {FEWEST_ROUNDS} rounds or "
            "more; name another file with --out"
        )


def is_published(path: Path) -> bool:
    """Whether a file is among those that README and notes quote."""
    return path.resolve().is_relative_to(RESULTS.resolve())


def where_to_write(out: Path, missing: Sequence[str]) -> Path:
    """The file to write; a result from which something is missing does not replace a published one, and says so."""
    if not missing or not is_published(out):
        return out
    apart = BUILD / out.name
    print(f"{shown(out)} stays as it is, because this run lacks {', '.join(missing)}; it is in {shown(apart)} instead")
    return apart


def shown(path: Path) -> str:
    """The path as seen from the repository's root, where it lies below that."""
    path = path.resolve()
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)
