"""A lesson's results on this machine beside the committed ones: what differs, and which facts differ with it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nbformat import NotebookNode

from machine_facts import ARITHMETIC, MEMORY, PRINTED_SPEEDS, Machine, printed_facts, printed_speed
from notebook_files import HEADLINE, code_cells, headline, printed_text
from notebook_runs import Outcome
from scoreboards import Scoreboard, scoreboards_in

FAR = 2.0  # results that are further apart than this factor get a sentence
NOTABLE = 1.25  # speeds that are closer than this factor explain nothing
BUSY = 0.75  # the share of the processors that others want on a machine that is called busy

# A number that stands alone: neither "GPT-2" nor "int8" holds one.
NUMBER = re.compile(r"(?<![\w.,-])(\d+(?:,\d{3})*(?:\.\d+)?)")
# How fast this machine is, and how fast the one of the committed Lesson 1 was, by the names of PRINTED_SPEEDS.
Speeds = Mapping[str, tuple[float | None, float | None]]

LOADS_ANY_MODEL = re.compile(r"\bload_model\((?![\"'])")  # without the name of a model of its own


@dataclass(frozen=True)
class Lesson:
    """One lesson: the path of its notebook below notebooks/, the committed notebook, and what came of it here.

    `committed` is None for a notebook that git does not know, `here` for a lesson that was not executed.
    """

    path: Path
    committed: NotebookNode | None
    here: Outcome | None

    @property
    def board_here(self) -> Scoreboard | None:
        """The scoreboard of the run on this machine."""
        return next(scoreboards_in(self.here.notebook), None) if self.here else None

    @property
    def board_committed(self) -> Scoreboard | None:
        """The scoreboard of the committed run."""
        return next(scoreboards_in(self.committed), None) if self.committed else None

    @property
    def compared(self) -> bool:
        """Whether there are two runs."""
        return self.here is not None and self.committed is not None


def apart(a: float, b: float) -> float:
    """How far two numbers that are not negative lie apart, as a ratio of 1 or more."""
    small, large = sorted((a, b))
    return 1.0 if small == large else large / small if small else float("inf")


# ---------------------------------------------------------------------------------------------------
# What differs


def numbers_in_place(sentence: str) -> dict[tuple[str, str], float]:
    """The numbers of a sentence by their place: the text between the neighbouring numbers and this one.

    >>> numbers_in_place("48 tokens: 3.7x as fast")
    {('', ' tokens: '): 48.0, (' tokens: ', 'x as fast'): 3.7}

    A place that comes twice says nothing, and its numbers are left out.
    """
    texts = NUMBER.split(sentence)  # text, number, text, number, ..., text
    places = list(zip(texts[:-2:2], texts[2::2], strict=True))
    times = Counter(places)
    numbers = (float(number.replace(",", "")) for number in texts[1::2])
    return {place: number for place, number in zip(places, numbers, strict=True) if times[place] == 1}


def far_in_headlines(lesson: Lesson) -> list[tuple[float, float]]:
    """The numbers (here, committed) of the two headlines that are far apart.

    Only numbers in the same place are compared, that is, between the same words. Where a headline is worded otherwise
    on this machine, or names another model, what stands there is not compared.
    """
    here, committed = (numbers_in_place(headline(nb) or "") for nb in (lesson.here.notebook, lesson.committed))
    pairs = [(number, committed[place]) for place, number in here.items() if place in committed]
    return [pair for pair in pairs if apart(*pair) > FAR]


def committed_measures(lesson: Lesson) -> dict[str, float]:
    """What the committed run measured, by the quantity's name and unit on its scoreboard."""
    board = lesson.board_committed
    return {f"{row.what} {row.unit}": row.measured for row in board.rows} if board else {}


def far_on_boards(lesson: Lesson) -> list[bool]:
    """For every quantity that both scoreboards measure: whether the two numbers are far apart."""
    committed, board = committed_measures(lesson), lesson.board_here
    pairs = [(row.measured, committed.get(f"{row.what} {row.unit}")) for row in board.rows] if board else []
    return [apart(here, there) > FAR for here, there in pairs if there is not None]


def is_clocked(nb: NotebookNode) -> bool:
    """Whether the cell that prints the headline is tagged as one whose output depends on a clock."""
    return any("timing" in cell.metadata.get("tags", []) for cell in code_cells(nb) if HEADLINE in printed_text(cell))


# ---------------------------------------------------------------------------------------------------
# Why


def speeds(lesson_1: Lesson | None, machine: Machine) -> Speeds:
    """The speeds of both machines; the memory's is measured without a lesson, all others are printed by Lesson 1."""
    notebooks = (lesson_1.here.notebook if lesson_1.here else None, lesson_1.committed) if lesson_1 else (None, None)
    found = {name: tuple(printed_speed(nb, name) if nb else None for nb in notebooks) for name in PRINTED_SPEEDS}
    found[MEMORY] = machine.bandwidth / 1e9, found[MEMORY][1]
    return found


def causes_of_other_results(lesson: Lesson, machine: Machine) -> Iterator[str]:
    """The differences between the two runs that may change anything a lesson prints."""
    names = list(machine.described)
    here = dict(machine.described) | printed_facts(lesson.here.notebook, names)
    there = printed_facts(lesson.committed, names)
    sources = "\n".join(cell.source for cell in code_cells(lesson.here.notebook))
    if machine.model and LOADS_ANY_MODEL.search(sources):
        yield f"it ran on another model (COURSE_MODEL={machine.model})"
    for name in ("gpu", "processor", "torch", "transformers"):
        if name in there and here[name] != there[name]:
            also = f" ({here['instruction set']})" if name == "processor" and "instruction set" in here else ""
            yield f"{name} is {here[name]}{also} here and was {there[name]} there"


def causes_of_other_times(lesson: Lesson, machine: Machine, found: Speeds) -> Iterator[str]:
    """The differences between the two runs that change what a clock measures."""
    if machine.repeats:
        yield f"no timing was repeated more often than COURSE_REPEATS={machine.repeats} allows"
    here, there = found[MEMORY]
    if there and apart(here, there) > NOTABLE:
        yield f"this machine reads its memory at {here:.3g} GB/s and the other one read it at {there:.3g} GB/s"
    here, there = found[ARITHMETIC]
    if here and there and apart(here, there) > NOTABLE:
        yield f"Lesson 1 counted {here:.3g} billion operations per second here and {there:.3g} billion there"
    notebooks = lesson.here.notebook, lesson.committed
    here, there = (printed_facts(nb, machine.described).get("cpu threads") for nb in notebooks)
    if here and there and here != there:
        yield f"PyTorch used {here} thread{'s' * (here != '1')} here and {there} there"
    if machine.load is not None and machine.load > BUSY * machine.processors:
        yield (
            f"this machine was busy before the first lesson (a load of {machine.load:.1f} with "
            f"{machine.processors} processors)"
        )


def sentence(lesson: Lesson, machine: Machine, found: Speeds) -> str:
    """What differs by more than a factor of two from the committed run and why that is likely; "" if nothing does."""
    if not lesson.compared:
        return ""
    numbers, rows = far_in_headlines(lesson), far_on_boards(lesson)
    what = [f"{here:g} in the headline (committed: {there:g})" for here, there in numbers]
    if any(rows):
        what.append(f"{sum(rows)} of {len(rows)} measured numbers on the scoreboard")
    if not what:
        return ""
    causes = list(causes_of_other_results(lesson, machine))
    if any(rows) or is_clocked(lesson.committed):
        causes += causes_of_other_times(lesson, machine, found)
    verb = "differs" if len(numbers) + sum(rows) == 1 else "differ"
    differs = f"{listed(what)} {verb} from the committed run by more than a factor of two"
    if causes:
        return f"{differs}, most likely {listed([f'because {cause}' for cause in causes])}."
    return f"{differs}, and nothing that was measured of the two machines says why; one run may have met a busy moment."


def listed(parts: Sequence[str]) -> str:
    """`["a", "b", "c"]` -> "a, b and c"."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
