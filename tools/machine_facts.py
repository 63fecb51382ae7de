"""What this machine is and how fast it reads, and what a notebook says of the machine on which it was executed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nbformat import NotebookNode

from notebook_files import ROOT, LessonError, code_cells, last_line, printed_text

MEMORY, ARITHMETIC = "memory is read at", "arithmetic"
# What Lesson 1 prints of the speed of its machine: pattern and unit, one number each.
PRINTED_SPEEDS = {
    MEMORY: (re.compile(r"read at ([\d,.]+) GB/s"), "GB/s"),
    ARITHMETIC: (re.compile(r"([\d,.]+) billion operations per second"), "billion operations per second"),
}

# A process of its own measures, so that this one does not hold PyTorch in memory while the lessons run.
MEASURE = """
import json, torch, measure
described = measure.machine() | {"instruction set": torch.backends.cpu.get_cpu_capability()}
print(json.dumps({"described": described, "bandwidth": measure.memory_bandwidth()}))
"""


@dataclass(frozen=True)
class Machine:
    """This machine, as it was before the first lesson began.

    Attributes:
        described: what `measure.machine()` says of it, and the instruction set that PyTorch uses.
        bandwidth: bytes per second at which it reads its memory.
        processors: how many processors the system has.
        load: how many of them were wanted at a time, on average over the last minute; None where the system does
            not tell.
        model: the model that COURSE_MODEL names, or "".
        repeats: how often a timing is repeated at most, by COURSE_REPEATS, or "".
    """

    described: Mapping[str, str]
    bandwidth: float
    processors: int
    load: float | None = None
    model: str = ""
    repeats: str = ""


def measure_machine() -> Machine:
    """Look at this machine and measure how fast it reads; takes a few seconds. Raises LessonError if that fails."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    environment = {name: value for name, value in os.environ.items() if name != "COURSE_REPEATS"}
    command = [sys.executable, "-c", MEASURE]
    result = subprocess.run(command, cwd=ROOT / "code", env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        raise LessonError(f"this machine could not be measured: {last_line(result.stderr)}")
    return Machine(
        **json.loads(last_line(result.stdout)),
        processors=os.cpu_count() or 1,
        load=load,
        model=os.environ.get("COURSE_MODEL", ""),
        repeats=os.environ.get("COURSE_REPEATS", ""),
    )


def printed_facts(nb: NotebookNode, names: Iterable[str]) -> dict[str, str]:
    """Those of the facts called `names` that a lesson prints at its beginning: {"cpu threads": "2", ...}.

    A lesson prints `measure.machine()`, either in one line, separated by commas, or in a line for each fact.
    """
    either = "|".join(map(re.escape, names))
    pattern = re.compile(rf"(?:^|, )({either}):? (.+?)(?=, (?:{either}):? |$)", flags=re.MULTILINE)
    for cell in code_cells(nb):
        if found := dict(pattern.findall(printed_text(cell))):
            return found
    return {}


def printed_speed(nb: NotebookNode, name: str) -> float | None:
    """The speed that a lesson prints, `name` being a key of PRINTED_SPEEDS and its unit the one given there."""
    pattern, _ = PRINTED_SPEEDS[name]
    for cell in code_cells(nb):
        if found := pattern.search(printed_text(cell)):
            return float(found[1].replace(",", ""))
    return None
