"""The page "Your machine": what `make lessons` found here, beside what the committed notebooks hold, as Markdown."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from comparison import FAR, Lesson, Speeds, apart, committed_measures, listed, sentence, speeds
from machine_facts import PRINTED_SPEEDS, Machine, printed_facts
from notebook_files import headline, lesson_number, page_title
from scoreboards import Scoreboard, quantity

UNKNOWN = "not recorded"
TITLE = "# Your machine"
INTRODUCTION = """`make lessons` ran {which} on this machine. The notebooks {of_these}hold the outputs of this run, and
this page sets them beside the outputs of the committed notebooks. {others}The notes are those of the project, and the
numbers in them were not measured here."""
PREDICTIONS = """A prediction that is off by more than a factor of 1.5 is a miss. What is exact is a count. The last
column is what the committed run measured; it is bold where the two measurements differ by more than a factor of two."""


def plain(text: str) -> str:
    """A text such that Markdown shows it as it is."""
    return re.sub(r"([\\`*_{}\[\]<>$|#~])", r"\\\1", text)


def short_name(lesson: Lesson) -> str:
    """Such as "Lesson 3"."""
    return page_title(lesson.path).partition(":")[0]


def machine_page(machine: Machine, lessons: Sequence[Lesson], link: Callable[[Lesson], str]) -> str:
    """The page as Markdown; `link` says where the text "the notebook" of an executed lesson leads, "" for nowhere."""
    first = next((lesson for lesson in lessons if lesson_number(lesson.path) == "1"), None)
    found = speeds(first, machine)
    boards = [(lesson, board) for lesson in lessons if (board := lesson.board_here)]
    parts = [
        TITLE,
        introduction(lessons),
        *failures(lessons),
        "## What was measured",
        facts_table(machine, lessons, found),
    ]
    parts += ["## The results, here and committed"]
    for lesson in lessons:
        parts += [f"### {plain(page_title(lesson.path))}", results(lesson, link(lesson))]
        parts += [plain(text) for text in [sentence(lesson, machine, found)] if text]
    if boards:
        parts += ["## The predictions, here", PREDICTIONS, summary_table(boards)]
    for lesson, board in boards:
        parts += [f"### Predictions of {plain(short_name(lesson))}", board_table(board, committed_measures(lesson))]
    return "\n\n".join(parts) + "\n"


def introduction(lessons: Sequence[Lesson]) -> str:
    """What was run, and what was not."""
    names = [short_name(lesson) for lesson in lessons if lesson.here]
    if len(names) == len(lessons):
        return INTRODUCTION.format(which="all lessons", of_these="", others="")
    others = "The other lessons were not run: their notebooks are shown as they were committed. "
    return INTRODUCTION.format(which=plain(listed(names)), of_these="of these lessons ", others=others)


def failures(lessons: Iterable[Lesson]) -> list[str]:
    """A paragraph for every lesson that did not come to its end."""
    failed = [(plain(short_name(lesson)), lesson.here.failure) for lesson in lessons if lesson.here]
    return [
        f"**{name} failed** in code cell {failure.code_cell}, `` {failure.first_line} ``: {plain(failure.error)}. "
        "Its notebook shows how far it came."
        for name, failure in failed
        if failure
    ]


def results(lesson: Lesson, link: str) -> str:
    """The headline here and the committed one, as a list of two."""
    here = "- **Here:** not run"
    if lesson.here:
        notebook = f", [the notebook]({link})" if link else ""
        here = f"- **Here** ({lesson.here.seconds:.0f} s{notebook}): {plain(lesson.here.summary)}"
    committed = headline(lesson.committed) if lesson.committed else None
    return f"{here}\n- **Committed:** {plain(committed or 'no result')}"


# ---------------------------------------------------------------------------------------------------
# Tables


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; columns whose names end in a colon hold numbers, which stand on the right."""
    marks = ["---:" if name.endswith(":") else "---" for name in head]
    names = [name.removesuffix(":") for name in head]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (names, marks, *rows))


def facts_table(machine: Machine, lessons: Sequence[Lesson], found: Speeds) -> str:
    """The facts about this machine beside those that the committed notebooks tell."""
    rows = []
    for name, (_, unit) in PRINTED_SPEEDS.items():
        here, there = (f"{speed:.3g} {unit}" if speed else UNKNOWN for speed in found[name])
        rows.append((name, here, there if there == UNKNOWN else f"{there} (Lesson 1)"))
    rows += [(name, value, committed_fact(name, machine, lessons)) for name, value in machine.described.items()]
    rows.append(("processors of the system", str(machine.processors), UNKNOWN))
    load = UNKNOWN if machine.load is None else f"{machine.load:.1f}"
    rows.append(("processors wanted by others before the first lesson", load, UNKNOWN))
    rows += [(name, value, "") for name, value in settings(machine)]
    return table(("Fact", "Here", "Committed run"), [[plain(cell) for cell in row] for row in rows])


def settings(machine: Machine) -> list[tuple[str, str]]:
    """The environment variables that change what a lesson does, where they are set."""
    known = (("COURSE_MODEL", machine.model), ("COURSE_REPEATS", machine.repeats))
    return [(name, value) for name, value in known if value]


def committed_fact(name: str, machine: Machine, lessons: Iterable[Lesson]) -> str:
    """What the committed lessons say of a fact: "2", or "2 (Lessons 1, 2), 1 (Lesson 6)" where they disagree."""
    numbers: dict[str, list[str]] = {}
    for lesson in lessons:
        facts = printed_facts(lesson.committed, machine.described) if lesson.committed else {}
        if name in facts:
            numbers.setdefault(facts[name], []).append(lesson_number(lesson.path))
    if len(numbers) <= 1:
        return next(iter(numbers), UNKNOWN)
    return "; ".join(f"{value} (Lesson{'s' * (len(of) > 1)} {', '.join(of)})" for value, of in numbers.items())


def summary_table(boards: Iterable[tuple[Lesson, Scoreboard]]) -> str:
    """How many predictions of every lesson came true here, and how many misses the committed run has."""
    rows = []
    for lesson, board in boards:
        exact, missed = sum(row.exact for row in board.rows), len(board.misses)
        there = str(len(lesson.board_committed.misses)) if lesson.board_committed else UNKNOWN
        close = len(board.rows) - exact - missed
        rows.append((plain(short_name(lesson)), *map(str, (len(board.rows), exact, close, missed)), there))
    return table(("Lesson", "Predictions:", "Exact:", "Within 1.5:", "Missed:", "Missed, committed:"), rows)


def board_table(board: Scoreboard, committed: dict[str, float]) -> str:
    """The predictions of one lesson."""
    rows = []
    for row in board.rows:
        there = committed.get(f"{row.what} {row.unit}")
        far = there is not None and apart(row.measured, there) > FAR
        shown = UNKNOWN if there is None else quantity(there, row.exact)
        numbers = (quantity(value, row.exact) for value in (row.predicted, row.measured))
        verdict = row.verdict.partition(";")[0]
        rows.append((plain(row.what), *numbers, plain(row.unit), plain(verdict), f"**{shown}**" if far else shown))
    return table(("Quantity", "Predicted:", "Measured:", "Unit", "Result", "Committed:"), rows)
